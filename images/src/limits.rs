//! The limits that meet bombs. Each has a default that no real image known to us comes near.

/// Limits on what one archive may contain. All are counted for the whole `load` or `import`, over all of
/// its layers, unless said.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Size of the archive itself when it has to be copied first (standard input, compressed archives).
    pub archive_bytes: u64,
    /// Uncompressed size of all layers, holes of sparse files included. Default 64 GiB.
    pub unpacked_bytes: u64,
    /// Entries of all layers. Default 2 million; the largest images known to us have half a million.
    pub entries: u64,
    /// Uncompressed size divided by compressed size, for one stream, once it is larger than
    /// `ratio_from_bytes`. gzip reaches 1030 at most, real layers about 10.
    pub ratio: u64,
    /// Below this uncompressed size, `ratio` doesn't matter: `dd if=/dev/zero` in a build is no attack.
    pub ratio_from_bytes: u64,
    /// Size of one PAX header (it holds names and extended attributes; an attribute has at most 64 KiB).
    pub header_bytes: u64,
    /// Length of an entry's name and of a link's target: the kernel's PATH_MAX without its final zero.
    pub path_bytes: usize,
    /// Pieces of one sparse file.
    pub sparse_pieces: usize,
    /// Layers of one image; docker's limit.
    pub layers: usize,
    /// Size of one JSON document. (Its depth is limited to 128 by serde_json.)
    pub json_bytes: u64,
    /// Images in one archive.
    pub images: usize,
    /// Entries of the outer archive. An image has three for each layer at most.
    pub archive_entries: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            archive_bytes: 64 << 30,
            unpacked_bytes: 64 << 30,
            entries: 2_000_000,
            ratio: 200,
            ratio_from_bytes: 1 << 30,
            header_bytes: 1 << 20,
            path_bytes: 4095,
            sparse_pieces: 65_536,
            layers: 127,
            json_bytes: 4 << 20,
            images: 1000,
            archive_entries: 20_000,
        }
    }
}

/// What to do with character and block devices in a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Make them, as docker does. They are of no use to a container whose device cgroup denies them.
    #[default]
    Create,
    /// Leave them out (for a host where root may not `mknod`).
    Skip,
    /// Refuse the archive.
    Refuse,
}
