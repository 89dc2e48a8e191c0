//! Audits a directory from the library:
//! `cargo run --example audit_directory -- demo-out/pruned demo/model`.

use std::path::PathBuf;

use physarium::audit::{AuditRequest, Evidence, audit, markdown};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let dir = arguments.next().ok_or("usage: audit_directory DIR [ORIGINAL]")?;
    let original = arguments.next();
    let request = AuditRequest {
        dir: &dir,
        against: original.as_deref(),
        evidence: Evidence::Bytes,
        selection: None,
        threads: 2,
    };
    let report = audit(&request, &mut |_| Ok(()))?;
    eprint!("{}", markdown(&report));
    Ok(())
}
