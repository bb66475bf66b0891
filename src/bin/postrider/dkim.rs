//! The DKIM signer of the command line.

use crate::args::DkimArgs;
use crate::error::CliError;

#[cfg(feature = "dkim")]
pub(crate) type Signer = postrider::Dkim;

/// No signer exists without the feature `dkim`.
#[cfg(not(feature = "dkim"))]
#[derive(Debug)]
pub(crate) enum Signer {}

/// Reads the private key and creates the signer. `None` if no DKIM option is given. No error contains any part of the key.
#[cfg(feature = "dkim")]
pub(crate) fn signer(args: &DkimArgs) -> Result<Option<Signer>, CliError> {
    use std::fs::File;
    use std::io::Read;

    /// More than any key needs. A special file such as `/dev/zero` has no end.
    const MAX_KEY_FILE: u64 = 64 * 1024;

    let DkimArgs { dkim_domain: Some(domain), dkim_selector: Some(selector), dkim_key: Some(path) } = args else {
        return Ok(None);
    };
    let mut key = String::new();
    let result = File::open(path).and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut key));
    result.map_err(|error| CliError::runtime(format!("--dkim-key: {} cannot be read: {error}", path.display())))?;
    let signer = Signer::new(domain, selector, &key);
    signer.map(Some).map_err(|error| CliError::usage(format!("DKIM: {error}")))
}

/// Refuses the DKIM options.
#[cfg(not(feature = "dkim"))]
pub(crate) fn signer(args: &DkimArgs) -> Result<Option<Signer>, CliError> {
    if args.dkim_domain.is_none() {
        return Ok(None);
    }
    Err(CliError::usage("--dkim-domain needs the feature `dkim`, and this postrider was built without it"))
}
