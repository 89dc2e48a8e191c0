/*!
The tensors that turn tokens into features and features into logits, and what else is stored.

In: the tensors of a model and its config. Out: which of them are embedding and head ([`Vocabulary`]). What is
stored decides, as in transformers 5: `tie_word_embeddings` stands for a tensor that is not stored.
*/

use std::collections::HashSet;

use physarium_checkpoint::sorted_naturally;

use super::config::Config;
use super::notes::Note;
use super::weights::{Tensor, Weights};
use crate::error::Result;

/// Files of an adapter, as peft writes them.
const ADAPTERS: [&str; 3] =
    ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];

/// Names of the two tensors `[vocabulary, hidden]`; the same name twice if one serves as both.
pub(crate) struct Vocabulary {
    pub(crate) embedding: String,
    pub(crate) head: String,
}

impl Vocabulary {
    /// Finds embedding and head, and checks their shapes.
    ///
    /// # Errors
    /// `Checkpoint` if one is missing, has another shape or dtype, or cannot be read.
    pub(crate) fn find(
        checked: &mut Checked<'_>,
        config: &Config,
        notes: &mut Vec<Note>,
    ) -> Result<Vocabulary> {
        let weights = checked.weights;
        let (embedding, head) = (weights.naming().embedding(), weights.naming().head());
        let shape = [config.vocabulary, config.hidden];
        let stored = (weights.has(&embedding), weights.has(&head));
        let (embedding, head) = match (config.tied, stored) {
            (true, (false, true)) => {
                notes.push(Note::HeadAsEmbedding { head: head.clone() });
                (head.clone(), head)
            }
            (true, (true, true)) => {
                let one = checked.find(&embedding, &shape)?;
                if one.has_same_bytes(&checked.find(&head, &shape)?)? {
                    (embedding.clone(), embedding)
                } else {
                    let (of_head, of_embedding) = (head.clone(), embedding.clone());
                    notes.push(Note::UntiedHead { head: of_head, embedding: of_embedding });
                    (embedding, head)
                }
            }
            (true, (_, false)) => (embedding.clone(), embedding),
            (false, _) => (embedding, head),
        };
        checked.find(&embedding, &shape)?;
        checked.find(&head, &shape)?;
        Ok(Vocabulary { embedding, head })
    }

    /// Whether one tensor serves as both.
    pub(crate) fn is_tied(&self) -> bool {
        self.embedding == self.head
    }
}

/// The tensors of a model, of which some have been checked.
pub(crate) struct Checked<'a> {
    pub(crate) weights: &'a Weights,
    names: HashSet<String>,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(weights: &'a Weights) -> Checked<'a> {
        Checked { weights, names: HashSet::new() }
    }

    /// As [`Weights::find`].
    pub(crate) fn find(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
        let found = self.weights.find(name, shape)?;
        self.names.insert(name.to_owned());
        Ok(found)
    }

    /// What the user should know, once everything that the decoder has is checked: tensors that it does not
    /// have, and an adapter. Buffers of rotary embeddings, which old checkpoints hold, are no weights.
    pub(crate) fn notes(self) -> Vec<Note> {
        let is_unused = |name: &&str| !self.names.contains(*name) && !name.contains("rotary_emb.");
        let unused = self.weights.names().filter(is_unused);
        let tensors = sorted_naturally(unused.map(str::to_owned), String::as_str);
        let unused = (!tensors.is_empty()).then_some(Note::Unused { tensors });
        let files = self.weights.files();
        let adapter = ADAPTERS.into_iter().find(|file| files.has(file));
        unused.into_iter().chain(adapter.map(|file| Note::Adapter { file })).collect()
    }
}
