//! The key that signs what is sent.

use crate::args::DkimArgs;
use crate::fail::Fail;

/// Signs mail.
#[cfg(feature = "dkim")]
pub(crate) type Signer = postrider::Dkim;

/// This build has none.
#[cfg(not(feature = "dkim"))]
#[derive(Debug)]
pub(crate) enum Signer {}

/// The signer that was asked for. No error repeats anything of the key.
#[cfg(feature = "dkim")]
pub(crate) fn signer(asked: &DkimArgs) -> Result<Option<Signer>, Fail> {
    use std::fs::File;
    use std::io::Read;

    /// Far more than a key has; some files have no end.
    const LIMIT: u64 = 64 * 1024;

    let DkimArgs { dkim_domain: Some(domain), dkim_selector: Some(selector), dkim_key: Some(path) } = asked else {
        return Ok(None);
    };
    let mut key = String::new();
    let read = File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut key));
    let shown = path.display();
    read.map_err(|error| Fail::runtime(format!("--dkim-key: {shown} cannot be read: {error}")))?;
    let signer = Signer::new(domain, selector, &key);
    signer.map(Some).map_err(|error| Fail::usage(format!("DKIM: {error}")))
}

/// Says that there can be none.
#[cfg(not(feature = "dkim"))]
pub(crate) fn signer(asked: &DkimArgs) -> Result<Option<Signer>, Fail> {
    if asked.dkim_domain.is_none() {
        return Ok(None);
    }
    Err(Fail::usage("--dkim-domain needs the feature `dkim`, and this postrider was built without it"))
}
