/*!
Maps of one row of activations: each weight is read once and used once.

In: one row. Out: one row for each map. The products are those of [`crate::matvec`].
*/

use super::linear::Linear;
use crate::compute::Compute;
use crate::matvec;

/// Writes the result of each map for the row `x`.
pub(super) fn forward_one_row(compute: &Compute, x: &[f32], maps: &mut [(&Linear, &mut [f32])]) {
    /// Lower and upper bound of the bytes of weights that a task reads.
    const TASK: [usize; 2] = [1 << 16, 1 << 18];
    let bytes: usize = maps.iter().map(|(map, _)| map.weights.size_bytes()).sum();
    let task = (bytes / (4 * compute.threads())).clamp(TASK[0], TASK[1]);
    let weights = maps.iter().map(|(map, _)| &*map.weights);
    let x = matvec::Arranged::new(compute.vectors(), x, weights);
    let mut tasks = Vec::new();
    for (map, y) in maps.iter_mut() {
        assert_eq!(map.inputs, x.inputs(), "maps of the same rows");
        assert_eq!(y.len(), map.outputs, "result of one row");
        let row = map.weights.size_bytes().div_ceil(map.outputs).max(1);
        // One row of weights may take more than a task.
        let rows = (task / row).max(1).next_multiple_of(matvec::ROWS);
        let parts = y.chunks_mut(rows).enumerate();
        tasks.extend(parts.map(|(index, y)| (&**map, index * rows, y)));
    }
    compute.each_chunk(&mut tasks, 1, |_, tasks| {
        for (map, first, y) in tasks {
            let product = matvec::Product { weights: &map.weights, inputs: map.inputs, x: &x };
            let rows = *first..*first + y.len();
            product.rows(compute.vectors(), rows.clone(), y);
            if let Some(bias) = &map.bias {
                y.iter_mut().zip(&bias[rows]).for_each(|(y, bias)| *y += bias);
            }
        }
    });
}
