/*!
What a recipe requests, against what the weights hold.

In: the recipe of a journal, and counts of weights. Out: whether as many weights are zero as the recipe requests, in
each tile, group or matrix, or over the model. A method whose sparsity is not fixed in advance requests nothing.
*/

pub(crate) mod bounds;
pub(crate) mod cells;
