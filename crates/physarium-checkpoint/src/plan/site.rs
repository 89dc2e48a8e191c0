//! Places of linear maps in a decoder, and the matrices stored for them.

/// A linear map of a decoder layer. Ordered as data flows through a layer; fused and other maps come last.
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
    /// q, k and v in one matrix, where the number of heads does not say which rows belong to which.
    Qkv,
    /// gate and up in one matrix that cannot be split between two rows.
    GateUp,
    /// Any other target, by the path of its module.
    Other(String),
}

impl Map {
    /// Its name in most checkpoints, such as `q_proj`; of any other tensor, the path of its module.
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
    /// Decoder layer index; absent when the name has none, or one over 64 bits.
    pub layer: Option<u64>,
    /// Which map of the layer.
    pub map: Map,
    /// Which expert of a mixture of experts; absent for a dense map and for a stack of all experts.
    pub expert: Option<u32>,
}

/// Which dimension of a stored matrix is its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// `[out_features, in_features]`.
    OutIn,
    /// `[in_features, out_features]`: rows are inputs.
    InOut,
    /// Neither name, config nor shape determines it.
    Unknown,
}

/// A matrix that is pruned by itself: a range of consecutive elements of one tensor.
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
    /// Whether rows or columns are inputs.
    pub orientation: Orientation,
}

impl MatrixView {
    /// Number of its elements.
    pub fn elements(&self) -> u64 {
        self.rows * self.cols
    }
}
