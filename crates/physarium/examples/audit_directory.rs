//! Audits a checkpoint, with or without the one that it was made from, and prints the tables:
//! `cargo run --example audit_directory -- demo-out/pruned demo/model`.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use physarium::audit::{AuditRequest, Evidence, audit, markdown};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let dir = arguments.next().ok_or("usage: audit_directory DIR [ORIGINAL]")?;
    let original = arguments.next();
    let request = AuditRequest {
        dir: &dir,
        against: original.as_deref(),
        evidence: Evidence::Bytes,
        selection: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let report = audit(&request, &mut |_| Ok(()))?;
    std::io::stdout().write_all(markdown(&report).as_bytes())?;
    if report.denominator_correct { Ok(()) } else { Err("the audit's checks failed".into()) }
}
