/*!
Models in object stores: S3 and what speaks its protocol, Google Cloud Storage, Azure.

In: an address such as `s3://bucket/models/llama`, and credentials from the environment. Out: a directory that the rest of physarium
reads as any checkpoint.

* [`Mirror`] is that directory: small files are copies, and each file of weights is a link that names its object, ETag and size.
* `object` reads such an object by ranges, a bounded part ahead (`ranges`); [`register`] lets
  [`Source::open`](physarium_checkpoint::Source::open) follow the links of mirrors.
* [`Upload`] copies a finished output into a store, with the manifest last.

Requests are made by the `object_store` crate. The first of a command are repeated 3 times within 20 s, those for weights for 5 minutes; then
they fail with the object's address.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod address;
mod client;
mod mirror;
mod object;
mod ranges;
mod runtime;
mod upload;

pub use address::StoreAddress;
pub use client::Client;
pub use mirror::{Mirror, cache_of_environment};
pub use object::register;
pub use upload::{OnBytes, Upload, Uploaded};
