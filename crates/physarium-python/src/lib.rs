/*!
The module `physarium._physarium`: what the Python package needs of Rust.

In: arguments of the program's commands, and matrices. Out: their JSON and matrices, or exceptions of
`physarium.errors`. The package in `python/physarium` gives them names and types.
*/

mod exceptions;
mod work;

use std::ffi::OsString;
use std::panic::catch_unwind;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use physarium::{MatrixRequest, prune_matrix as prune};
use physarium_cli::embedded::{Call, matrix_options};
use pyo3::prelude::*;

use work::{Events, Work};

/// What the Python package needs of Rust.
#[pymodule]
mod _physarium {
    #[pymodule_export]
    use super::{call, program, provoke_panic, prune_matrix};
}

/// Runs the program in this process. `arguments` begin with its name. Returns its exit code.
#[pyfunction]
fn program(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    // A panic has been reported on stderr; 101 is the code with which a program ends then.
    py.detach(|| catch_unwind(|| physarium_cli::run(arguments))).unwrap_or(101)
}

/// Runs a command. `arguments` begin with its name. Returns its exit code and its result in JSON.
#[pyfunction]
#[pyo3(signature = (arguments, listener=None))]
fn call(
    py: Python<'_>,
    arguments: Vec<OsString>,
    listener: Option<Bound<'_, PyAny>>,
) -> PyResult<(u8, String)> {
    let command = |cancel, events: Events| {
        let listener = Box::new(move |event: &_| events.send(event));
        Call { arguments, cancel, listener }.run()
    };
    let answer =
        Work { py, listener, result: |answer: &_| Some(result_of(answer)) }.run(command)?;
    Ok((answer.exit_code, answer.json))
}

fn result_of(answer: &physarium_cli::embedded::Answer) -> String {
    answer.json.clone()
}

/// Prunes float32 weights `[out_features, in_features]` into a new array, by the options in `arguments`.
#[pyfunction]
fn prune_matrix<'py>(
    py: Python<'py>,
    weights: PyReadonlyArray2<'py, f32>,
    gram: Option<PyReadonlyArray2<'py, f32>>,
    arguments: Vec<OsString>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    // Copies: other threads of Python may write to the arrays while no lock is held.
    let shape = [weights.shape()[0], weights.shape()[1]];
    let weights = weights.as_array().iter().copied().collect::<Vec<f32>>();
    let gram = gram.map(|gram| gram.as_array().iter().copied().collect::<Vec<f32>>());
    let pruned = Work { py, listener: None, result: |_: &_| None }.run(|cancel, _| {
        let (options, threads) = matrix_options(arguments)?;
        let gram = gram.as_deref();
        let request = MatrixRequest { weights: &weights, shape, gram, options: &options, threads };
        Ok(prune(&request, &cancel)?)
    })?;
    PyArray1::from_vec(py, pruned).reshape(shape)
}

/// Panics, as a defect of the program would.
#[pyfunction]
fn provoke_panic(py: Python<'_>, message: String) -> PyResult<()> {
    Work { py, listener: None, result: |_: &_| None }.run(|_, _| panic!("{message}"))
}
