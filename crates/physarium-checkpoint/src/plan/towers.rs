//! Modules of a checkpoint beside its language model, by the words in their names.

/// Words in the names of vision and audio encoders, of their connections to the language model, of heads that
/// predict further tokens, and of models that speak.
const WORDS: [&str; 33] = [
    "vision",
    "visual",
    "image",
    "img",
    "video",
    "vit",
    "siglip",
    "clip",
    "vpm",
    "vq",
    "vae",
    "audio",
    "speech",
    "sound",
    "apm",
    "whisper",
    "encoder",
    "encoders",
    "tower",
    "projector",
    "connector",
    "aligner",
    "resampler",
    "perceiver",
    "qformer",
    "mtp",
    "nextn",
    "eagle",
    "medusa",
    "draft",
    "talker",
    "tts",
    "wav",
];

/// Whether a module of this path is not a language model: `model.vision_tower.encoder`, `mtp`.
pub(super) fn is_tower(path: &[&str]) -> bool {
    let words = path.iter().flat_map(|part| part.split(['_', '2']));
    words.into_iter().any(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn towers_are_known_by_their_names() {
        let is = |path: &str| is_tower(&path.split('.').collect::<Vec<_>>());
        for tower in [
            "vision_tower.vision_model.encoder",
            "model.visual",
            "model.pixtral_tower.transformer",
            "thinker.audio_tower",
            "talker.model",
            "model.mtp_layers",
            "token2wav.transformer",
            "vpm.encoder",
        ] {
            assert!(is(tower), "{tower}");
        }
        for model in
            ["", "model", "model.language_model", "thinker.model", "transformer", "llm.model"]
        {
            assert!(!is(model), "{model}");
        }
    }
}
