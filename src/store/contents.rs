//! Contents: large attachments, which a store keeps once for all messages.

use std::collections::{BTreeMap, HashMap, HashSet};

use postrider_transport::{Content, ContentHash, Encoded};

use crate::store::NewRow;

/// The error of a queued delivery whose message is deleted.
pub(super) const MESSAGE_DELETED: &str = "the message is deleted";

/// The error of a message that lacks a content.
pub(super) const CONTENT_MISSING: &str = "a content of the message is missing or damaged";

/// The contents of new rows, each once, in the order of their hashes.
pub(super) fn distinct_contents<'a>(rows: impl IntoIterator<Item = &'a NewRow>) -> BTreeMap<ContentHash, &'a Content> {
    let contents = rows.into_iter().flat_map(|row| &row.message.contents);
    contents.map(|content| (content.hash(), content)).collect()
}

/// The contents of one message as a store keeps them: each hash once.
pub(super) fn distinct_hashes(message: &Encoded) -> Vec<ContentHash> {
    let mut seen = HashSet::new();
    message.contents.iter().map(Content::hash).filter(|hash| seen.insert(*hash)).collect()
}

/// Adds the contents with these hashes to a stored message. Returns whether all of them exist.
pub(super) fn add_contents(
    message: &mut Encoded,
    hashes: &[ContentHash],
    contents: &HashMap<ContentHash, Content>,
) -> bool {
    message.contents = hashes.iter().filter_map(|hash| contents.get(hash)).cloned().collect();
    message.contents.len() == hashes.len()
}

/// Reads a content from the database. The hash is computed from its octets, so that a damaged content does not have the hash that the
/// message names.
pub(super) fn read_content(bytes: &[u8]) -> (ContentHash, Content) {
    let content = Content::new(bytes);
    (content.hash(), content)
}
