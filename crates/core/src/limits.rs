//! What a store accepts, declared before anything is written.

/// What "durable" means where a store acknowledges an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Durability {
    /// Nothing survives the process: the memory store.
    None,
    /// The bytes have been forced to the device (`fdatasync`, `F_FULLFSYNC` on macOS).
    Device,
    /// A quorum of replicas in the region holds the bytes.
    RegionQuorum,
}

/// The limits of a store. Every one is checked before anything is written, and an error names both numbers.
///
/// All backends have the same upper bounds, so that any log can be copied to any of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Bytes of one event's data.
    pub data_bytes_max: u64,
    /// Bytes of one frame's body, which holds at least one whole batch.
    pub frame_bytes_max: u64,
    /// Events in one append.
    pub batch_events_max: u64,
    /// Bytes of one event's entry: everything about it but its data.
    pub entry_bytes_max: u64,
    /// Bytes of an id, a type or a stream's name.
    pub name_bytes_max: u64,
    /// Bytes of a source.
    pub source_bytes_max: u64,
    /// Bytes of a tag, `key=value` together.
    pub tag_bytes_max: u64,
    /// Tags of one event.
    pub tags_max: u64,
    /// Bytes of the name of an attribute.
    pub attribute_name_bytes_max: u64,
    /// Conditions of one append.
    pub conditions_max: u64,
    /// Items of one query; also the types and the tags of one item.
    pub query_items_max: u64,
    /// Types, tags, streams and attributes of one query, all items together.
    pub query_terms_max: u64,
    /// Bytes of a register's value.
    pub register_bytes_max: u64,
}

impl Limits {
    /// The limits every backend has, with the durability of this one.
    pub const fn new(durability: Durability) -> Self {
        Self {
            durability,
            data_bytes_max: 15 << 20,
            frame_bytes_max: 16 << 20,
            batch_events_max: 10_000,
            entry_bytes_max: 65_535,
            name_bytes_max: 512,
            source_bytes_max: 2_048,
            tag_bytes_max: 256,
            tags_max: 128,
            attribute_name_bytes_max: 64,
            conditions_max: 64,
            query_items_max: 256,
            query_terms_max: 1_024,
            register_bytes_max: 64 << 10,
        }
    }
}
