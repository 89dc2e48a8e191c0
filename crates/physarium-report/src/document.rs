//! What a page is made of: the JSON of audits, comparisons and evaluations.

use std::fs;
use std::path::{Path, PathBuf};

use physarium::audit::Audit;
use physarium::{ChoicesResult, ComparisonRecord, Evaluation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::embedded::read_back;
use crate::error::Error;
use crate::{audit_page, comparison_page};

/// A document, with the name that it has beside others.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its name: the directory that it is in, or the file without its extension.
    pub name: String,
    /// The file that it was read from.
    pub file: PathBuf,
    /// What it is.
    pub content: Content,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// `physarium.audit/1`.
    Audit(Box<Audit>),
    /// `physarium.compare/1`.
    Comparison(Box<ComparisonRecord>),
    /// `physarium.eval/1`.
    Evaluation(Box<Evaluated>),
    /// `physarium.choices/1`.
    Choices(Box<ChoicesResult>),
}

/// An evaluation of a text, and of multiple-choice items if both were asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluated {
    /// Of the text.
    #[serde(flatten)]
    pub text: Evaluation,
    /// Of the items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<ChoicesResult>,
}

#[derive(Deserialize)]
struct Schema {
    schema: String,
}

impl Content {
    /// Reads JSON.
    ///
    /// # Errors
    /// `Document` for another schema, and for fields that are missing or of another type; `Changed` for an audit whose
    /// numbers contradict one another.
    pub fn of_json(json: &str) -> Result<Content, Error> {
        let schema = parsed::<Schema>(json)?.schema;
        let content = match schema.as_str() {
            "physarium.audit/1" => Content::Audit(Box::new(audit(parsed(json)?)?)),
            "physarium.compare/1" => Content::Comparison(Box::new(parsed(json)?)),
            "physarium.eval/1" => Content::Evaluation(Box::new(parsed(json)?)),
            "physarium.choices/1" => Content::Choices(Box::new(parsed(json)?)),
            other => return Err(Error::Document { found: format!("schema {other:?}") }),
        };
        Ok(content)
    }

    /// Reads the JSON of a page: a document, or an array of them.
    fn of_page(json: &str) -> Result<Vec<Content>, Error> {
        if !json.starts_with('[') {
            return Ok(vec![Content::of_json(json)?]);
        }
        let documents: Vec<Box<RawValue>> = parsed(json)?;
        documents.iter().map(|document| Content::of_json(document.get())).collect()
    }
}

fn parsed<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|e| Error::Document { found: e.to_string() })
}

fn audit(audit: Audit) -> Result<Audit, Error> {
    match audit.contradiction() {
        None => Ok(audit),
        Some(what) => Err(Error::Changed { what }),
    }
}

impl Document {
    /// Its charts as SVG files, each with a name; an evaluation has none.
    pub fn pictures(&self) -> Vec<(&'static str, String)> {
        match &self.content {
            Content::Audit(audit) => audit_page::pictures(audit),
            Content::Comparison(comparison) => comparison_page::pictures(comparison),
            Content::Evaluation(_) | Content::Choices(_) => Vec::new(),
        }
    }

    /// Reads documents: a file in JSON, a page of one or several, or a directory with such files of JSON. Several
    /// documents of one page have its name with a number.
    ///
    /// # Errors
    /// `Io`; `File` for a file that is no document; `NoDocument` for a directory without one.
    pub fn read(path: &Path) -> Result<Vec<Document>, Error> {
        if !path.is_dir() {
            return Document::of_file(path);
        }
        let unreadable = |source| Error::Io { path: path.to_owned(), source };
        let entries = fs::read_dir(path).map_err(unreadable)?;
        let files: Result<Vec<PathBuf>, _> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut files = files.map_err(unreadable)?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let read = files.iter().map(|file| match Document::of_file(file) {
            // Other JSON lies in such directories too.
            Err(Error::File { fault, .. }) if matches!(*fault, Error::Document { .. }) => {
                Ok(Vec::new())
            }
            other => other,
        });
        let documents: Vec<Document> =
            read.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        match documents.is_empty() {
            true => Err(Error::NoDocument { path: path.to_owned() }),
            false => Ok(documents),
        }
    }

    fn of_file(path: &Path) -> Result<Vec<Document>, Error> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let is_page = path.extension().is_some_and(|extension| extension == "html");
        let read = || match is_page {
            true => Content::of_page(&read_back(&text)?),
            false => Ok(vec![Content::of_json(&text)?]),
        };
        let contents = read()
            .map_err(|fault| Error::File { path: path.to_owned(), fault: Box::new(fault) })?;
        let (name, several) = (name_of(path), contents.len() > 1);
        let document = |(at, content)| {
            let name = if several { format!("{name}-{}", at + 1) } else { name.clone() };
            Document { name, file: path.to_owned(), content }
        };
        Ok(contents.into_iter().enumerate().map(document).collect())
    }
}

/// The directory of a file that has its ordinary name, which says nothing; otherwise its own name.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let parent = || Some(path.parent()?.file_name()?.to_string_lossy().into_owned());
    match stem {
        Some(stem) if stem.starts_with("physarium.") || stem == "compare" => {
            parent().unwrap_or(stem)
        }
        Some(stem) => stem,
        None => path.display().to_string(),
    }
}
