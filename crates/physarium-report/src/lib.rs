/*!
Pages and pictures of what physarium has measured.

In: audits, comparisons and evaluations, as the library makes them or as JSON. Out: HTML files that need nothing else,
each with the JSON that it was made from, and SVG files.

* [`audit_page`], [`comparison_page`] and [`overview_page`] make pages.
* [`read_back`] returns the JSON of a page; [`Document::read`] reads files and directories.
* [`Document::pictures`] are the same charts as files.

Nothing is in a page that is not in its JSON. Texts come from strangers' files and are escaped by the templates
(`templates/`), by `chart/` for SVG, and by the script, which sets text only.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod audit_page;
mod chart;
mod comparison_page;
mod document;
mod embedded;
mod error;
mod frame;
mod overview_page;
mod palette;
mod words;

pub use audit_page::audit_page;
pub use comparison_page::comparison_page;
pub use document::{Content, Document, Evaluated};
pub use embedded::read_back;
pub use error::Error;
pub use overview_page::overview_page;
