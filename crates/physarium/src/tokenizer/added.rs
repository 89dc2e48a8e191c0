/*!
Special tokens that `tokenizer.json` does not know.

transformers adds them when it loads a tokenizer; without them, `<|user|>` would be split into letters. In: the
tokens in `tokenizer_config.json` (`added_tokens_decoder`), or else in `added_tokens.json`, then those that have a
role, such as `bos_token`. Out: a tokenizer that has them all.
*/

use std::collections::HashSet;

use physarium_checkpoint::{Malformed, printable};
use physarium_model::ModelFiles;
use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::config::TokenizerConfig;
use super::files::{ADDED_NAME, CONFIG_NAME, FILE_NAME, fault, json};
use super::shape::check_added;
use crate::error::{Error, Result};

/// The roles of special tokens.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Fields with further special tokens: a list, or an object whose values are tokens.
const FURTHER: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
const DECODER: &str = "added_tokens_decoder";

/// A token that a file adds.
struct Addition {
    token: AddedToken,
    /// Its id as the file says, and the file. A token with a role has none.
    stated: Option<(u32, &'static str)>,
}

/// Adds the tokens that the tokenizer does not have, in the order of their ids. Returns the new ids of tokens that no
/// file gives an id.
///
/// # Errors
/// `Checkpoint` for a malformed file, and for a token that would not get the id that its file says.
pub(super) fn add_missing(
    tokenizer: &mut Tokenizer,
    files: &ModelFiles,
    config: &TokenizerConfig,
) -> Result<HashSet<u32>> {
    let mut invented = HashSet::new();
    let with_roles = with_roles(config);
    let roles: HashSet<String> = with_roles.iter().map(|token| token.content.clone()).collect();
    let mut additions = match config.get(DECODER) {
        Value::Null => of_added_tokens(files, &roles)?,
        decoder => of_decoder(files, decoder)?,
    };
    additions.sort_by_key(|addition| addition.stated.map(|(id, _)| id));
    additions.extend(with_roles.into_iter().map(|token| Addition { token, stated: None }));
    let mut known: HashSet<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    additions.retain(|Addition { token, .. }| {
        !token.content.is_empty() && known.insert(token.content.clone())
    });
    let parts = additions
        .iter()
        .map(|addition| (addition.token.content.as_str(), addition.stated.map_or(0, |(id, _)| id)));
    check_added(parts).map_err(|found| fault(&files.path_of(CONFIG_NAME), &found))?;
    let was_known: Vec<bool> = additions
        .iter()
        .map(|addition| tokenizer.token_to_id(&addition.token.content).is_some())
        .collect();
    // All at once: each call builds the table of all tokens anew.
    let tokens = additions.iter().map(|Addition { token, .. }| {
        let special = token.special || roles.contains(&token.content);
        token.clone().special(special)
    });
    let added = tokenizer.add_tokens(tokens.collect::<Vec<_>>());
    added.map_err(|e| fault(&files.path_of(FILE_NAME), &e.to_string()))?;
    for (Addition { token, stated }, was_known) in additions.into_iter().zip(was_known) {
        let content = token.content;
        let given = tokenizer.token_to_id(&content);
        if stated.is_none() && !was_known {
            invented.extend(given);
        }
        if let Some((id, file)) = stated
            && given != Some(id)
        {
            let expected = format!("the id that the tokenizer gives it, {}", given.unwrap_or(0));
            let found = format!("{} with id {id}", printable(&content));
            return Err(Malformed::new(&files.path_of(file), "added token", expected, found).into());
        }
    }
    Ok(invented)
}

/// The tokens in `added_tokens_decoder`: an object from ids to tokens.
fn of_decoder(files: &ModelFiles, decoder: &Value) -> Result<Vec<Addition>> {
    let path = files.path_of(CONFIG_NAME);
    let one = |(id, entry): (&String, &Value)| {
        let addition = id.parse().ok().zip(token(entry, false));
        let (id, token) = addition.ok_or_else(|| {
            let expected = format!("an id and a token with its content in {DECODER}");
            let found = printable(&format!("\"{id}\": {entry}"));
            Error::from(Malformed::new(&path, "added token", expected, found))
        })?;
        Ok(Addition { token, stated: Some((id, CONFIG_NAME)) })
    };
    decoder.as_object().into_iter().flatten().map(one).collect()
}

/// The tokens in `added_tokens.json`: an object from tokens to ids.
fn of_added_tokens(files: &ModelFiles, special: &HashSet<String>) -> Result<Vec<Addition>> {
    let added = json(files, ADDED_NAME)?;
    let one = |(content, id): (&String, &Value)| {
        let stated = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = stated.ok_or_else(|| {
            let found = printable(&format!("\"{content}\": {id}"));
            let path = files.path_of(ADDED_NAME);
            Error::from(Malformed::new(&path, "added token", "a token and its id", found))
        })?;
        let token = AddedToken::from(content.clone(), special.contains(content));
        Ok(Addition { token, stated: Some((id, ADDED_NAME)) })
    };
    added.as_object().into_iter().flatten().map(one).collect()
}

/// The special tokens that have a role.
fn with_roles(config: &TokenizerConfig) -> Vec<AddedToken> {
    let roles = ROLES.iter().map(|role| config.get(role));
    let further = FURTHER.iter().flat_map(|field| match config.get(field) {
        Value::Array(tokens) => tokens.iter().collect(),
        Value::Object(tokens) => tokens.values().collect(),
        _ => Vec::new(),
    });
    roles.chain(further).filter_map(|value| token(value, true)).collect()
}

/// A token as a string, or as an object with `content` and how it is matched.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let content = value.as_str().or(value["content"].as_str())?;
    let flag = |name: &str, default| value[name].as_bool().unwrap_or(default);
    let special = flag("special", special);
    Some(
        AddedToken::from(content, special)
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .normalized(flag("normalized", !special)),
    )
}
