//! How much room images take: a layer that several images have is there once.

use crate::digest::{Digest, ImageId};
use crate::error::Result;
use crate::store::Store;

impl Store {
    /// An image's layers, lowest first: diff id, and the sum of its files' sizes in bytes.
    ///
    /// # Errors
    /// A damaged record.
    pub fn layer_sizes(&self, id: ImageId) -> Result<Vec<(Digest, u64)>> {
        let mut sizes = Vec::new();
        for layer in self.record(id)?.layers {
            sizes.push((layer, self.layer(&layer)?.map_or(0, |record| record.size_bytes)));
        }
        Ok(sizes)
    }
}
