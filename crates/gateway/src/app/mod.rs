//! Apps: steps that call prompts, tools and models, run as one call.

use base::Digest;

/// One version of an app, checked and ready to run.
#[derive(Debug)]
pub struct AppVersion {
    /// The digest of its document.
    pub digest: Digest,
}
