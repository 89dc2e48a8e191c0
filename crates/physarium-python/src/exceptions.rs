//! Failures as exceptions of `physarium.errors`.

use std::any::Any;

use physarium::checkpoint::{ErrorKind, Fault};
use physarium_cli::embedded::Failure;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The exception of a failure.
pub fn of_failure(py: Python<'_>, failure: &Failure) -> PyErr {
    let class = match failure.kind {
        Some(ErrorKind::Usage) => "UsageError",
        Some(ErrorKind::Input) => "InputError",
        Some(ErrorKind::Output) => "OutputError",
        Some(ErrorKind::Environment) => "ResourceError",
        Some(ErrorKind::Unsupported) => "UnsupportedError",
        Some(ErrorKind::InputChanged) => "InputChangedError",
        Some(ErrorKind::Interrupted) => "Interrupted",
        Some(_) | None => "Error",
    };
    exception(py, class, &failure.message, &failure.fault).unwrap_or_else(|e| e)
}

/// The exception of a panic.
pub fn of_panic(py: Python<'_>, payload: &(dyn Any + Send)) -> PyErr {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = format!("defect in physarium: {}", text.unwrap_or("panic without a message"));
    exception(py, "Panic", &message, &Fault::default()).unwrap_or_else(|e| e)
}

/// The exception of a run that was stopped when it had a result, or a part of it, in JSON.
pub fn of_partial_result(py: Python<'_>, result: &str) -> PyErr {
    let make = || {
        let message = "interrupted; what there is of the result is in the attribute result";
        let interrupted = exception(py, "Interrupted", message, &Fault::default())?;
        let result = py.import("json")?.call_method1("loads", (result,))?;
        interrupted.value(py).setattr("result", result)?;
        Ok(interrupted)
    };
    make().unwrap_or_else(|e| e)
}

fn exception(py: Python<'_>, class: &str, message: &str, fault: &Fault) -> PyResult<PyErr> {
    let parts = PyDict::new(py);
    parts.set_item("file", fault.file.as_deref())?;
    parts.set_item("tensor", fault.tensor.as_deref())?;
    parts.set_item("expected", fault.expected.as_deref())?;
    parts.set_item("found", fault.found.as_deref())?;
    let class = py.import("physarium.errors")?.getattr(class)?;
    Ok(PyErr::from_value(class.call((message,), Some(&parts))?))
}
