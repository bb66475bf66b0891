//! Blobs: large attachments, which a store keeps once for all messages.

use std::collections::{BTreeMap, HashMap, HashSet};

use postrider_transport::{Blob, BlobHash, Encoded};

use crate::store::NewRow;

/// The error of a queued delivery whose message is deleted.
pub(super) const MESSAGE_DELETED: &str = "the message is deleted";

/// The error of a message that lacks a blob.
pub(super) const BLOB_MISSING: &str = "an attachment of the message is missing or damaged";

/// The blobs of new rows, each once, in the order of their hashes.
pub(super) fn distinct_blobs<'a>(rows: impl IntoIterator<Item = &'a NewRow>) -> BTreeMap<BlobHash, &'a Blob> {
    let blobs = rows.into_iter().flat_map(|row| &row.message.blobs);
    blobs.map(|blob| (blob.hash(), blob)).collect()
}

/// The blobs of one message as a store keeps them: each hash once.
pub(super) fn distinct_hashes(message: &Encoded) -> Vec<BlobHash> {
    let mut seen = HashSet::new();
    message.blobs.iter().map(Blob::hash).filter(|hash| seen.insert(*hash)).collect()
}

/// Adds the blobs with these hashes to a stored message. Returns whether all of them exist.
pub(super) fn add_blobs(message: &mut Encoded, hashes: &[BlobHash], blobs: &HashMap<BlobHash, Blob>) -> bool {
    message.blobs = hashes.iter().filter_map(|hash| blobs.get(hash)).cloned().collect();
    message.blobs.len() == hashes.len()
}

/// Reads a blob from the database. The hash is computed from its bytes, so that a damaged blob does not have the hash that the
/// message names.
pub(super) fn read_blob(bytes: &[u8]) -> (BlobHash, Blob) {
    let blob = Blob::new(bytes);
    (blob.hash(), blob)
}
