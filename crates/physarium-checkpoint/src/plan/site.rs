//! Places of linear maps in a decoder, and the matrices that stand there.

/// A linear map of a decoder layer. Ordered as data flows through a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the checkpoints' own")]
pub enum Map {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
    /// q, k and v in one matrix whose borders are unknown.
    Qkv,
    /// gate and up in one matrix that has no border between rows.
    GateUp,
    /// Any other tensor that the user targets, by its module's path.
    Other(String),
}

impl Map {
    /// Its name in most checkpoints: `q_proj`; of any other tensor, its module's path.
    pub fn name(&self) -> &str {
        match self {
            Map::Q => "q_proj",
            Map::K => "k_proj",
            Map::V => "v_proj",
            Map::O => "o_proj",
            Map::Gate => "gate_proj",
            Map::Up => "up_proj",
            Map::Down => "down_proj",
            Map::Qkv => "qkv_proj",
            Map::GateUp => "gate_up_proj",
            Map::Other(module) => module,
        }
    }
}

/// The place of a linear map in a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Decoder layer index; absent when the name has none, or one beyond 64 bits.
    pub layer: Option<u64>,
    /// Which map of the layer.
    pub map: Map,
    /// Which expert of a mixture of experts.
    pub expert: Option<u32>,
}

/// Which way round a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// `[out_features, in_features]`.
    OutIn,
    /// `[in_features, out_features]`: inputs are rows.
    InOut,
    /// Neither name, config nor shape tells.
    Unknown,
}

/// A matrix that is pruned by itself: a window of one tensor, of consecutive elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixView {
    /// Its place in the decoder.
    pub site: Site,
    /// Its first element, counted from the tensor's first.
    pub begin: u64,
    /// Rows as stored; `out_features` unless `orientation` says otherwise.
    pub rows: u64,
    /// Columns as stored; `in_features` unless `orientation` says otherwise.
    pub cols: u64,
    /// Which of the two are inputs.
    pub orientation: Orientation,
}

impl MatrixView {
    /// Its elements.
    pub fn elements(&self) -> u64 {
        self.rows * self.cols
    }
}
