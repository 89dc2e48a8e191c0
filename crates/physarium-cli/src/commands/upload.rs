//! `physarium upload`: a finished output into an object store.

use std::path::PathBuf;

use clap::Args;
use physarium::Event;
use physarium_store::{StoreAddress, Upload, Uploaded};
use serde_json::json;

use crate::arguments::{Display, Format};
use crate::output::{self, Outcome, counted, size};
use crate::{signals, terminal};

/// Upload an output of prune to an object store
///
/// Each file is checked against the SHA-256 in the manifest on its way. The manifest is the last object: an address with one
/// holds the whole output. Rerun the same command to resume. Nothing at the address is replaced.
///
/// Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL for s3,
/// GOOGLE_SERVICE_ACCOUNT for gs, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY for az.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Output directory of `physarium prune`
    dir: PathBuf,
    /// Where to: s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH
    address: PathBuf,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium upload models/pruned s3://bucket/models/pruned
  physarium verify s3://bucket/models/pruned --against models/llama";

/// Uploads.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let address = StoreAddress::parse(&arguments.address)?;
    let upload = Upload::of(&arguments.dir)?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    progress.event(Event::Started { task: "upload", bytes: upload.bytes(), tensors: 0 });
    let done = upload.run(&address, &mut |bytes| {
        progress.event(Event::Bytes(bytes));
        match cancel.is_raised() {
            true => Err(physarium::checkpoint::Error::Interrupted),
            false => Ok(()),
        }
    })?;
    progress.event(Event::Finished);
    drop(progress);
    let Uploaded { written, kept, bytes } = done;
    match arguments.display.format() {
        Format::Json => output::json(&json!({
            "schema": "physarium.upload/1",
            "address": address.to_string(),
            "written": written,
            "kept": kept,
            "bytes": bytes,
        }))?,
        Format::Text => {
            let objects = counted((written + kept) as u64, "object");
            let before = match kept {
                0 => String::new(),
                kept => format!(", of which {kept} were there before"),
            };
            output::text(&format!("{address}: {objects} of {}{before}\n", size(bytes)))?;
        }
    }
    Ok(Outcome::True)
}
