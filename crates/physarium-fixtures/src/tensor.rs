//! Descriptions of tensors to write.

/// Element types that fixtures are filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bf16,
    F16,
    F32,
    /// A one-byte dtype of this name, for tensors that physarium must copy without reading them as floats.
    Bytes(&'static str),
}

impl Kind {
    /// Its spelling in a header.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bf16 => "BF16",
            Kind::F16 => "F16",
            Kind::F32 => "F32",
            Kind::Bytes(name) => name,
        }
    }

    /// Bytes of one element.
    pub fn size_bytes(self) -> u64 {
        match self {
            Kind::Bf16 | Kind::F16 => 2,
            Kind::F32 => 4,
            Kind::Bytes(_) => 1,
        }
    }
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    pub kind: Kind,
    pub shape: Vec<u64>,
}

impl Tensor {
    pub fn new(name: impl Into<String>, kind: Kind, shape: &[u64]) -> Tensor {
        Tensor { name: name.into(), kind, shape: shape.to_vec() }
    }

    /// Product of its dimensions.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes of all elements.
    pub fn size_bytes(&self) -> u64 {
        self.elements() * self.kind.size_bytes()
    }
}
