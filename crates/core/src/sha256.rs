//! SHA-256 (FIPS 180-4) of several messages side by side.
//!
//! A processor with instructions for SHA-256 waits half of the time: each round needs the one before it. Two messages do not need
//! each other. Their blocks are compressed in turn here, so that the second is under way while the first waits: where a
//! processor reorders enough, both take three quarters of the time. What compresses a block is that of [`sha2`].

use sha2::block_api::compress256;

/// What is compressed at once.
pub(crate) type Block = [u8; 64];

/// The hash value after a number of blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State([u32; 8]);

impl State {
    /// Before the first block: FIPS 180-4, section 5.3.3.
    pub(crate) const START: Self = Self([
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ]);

    /// As bytes, which is the digest once the last block is in it.
    pub(crate) fn digest(self) -> [u8; 32] {
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.0) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// Compresses the blocks of two messages, which need not be equally many.
pub(crate) fn compress(states: &mut [State; 2], messages: [&[Block]; 2]) {
    let both = messages[0].len().min(messages[1].len());
    let [(a_blocks, a_rest), (b_blocks, b_rest)] = messages.map(|blocks| blocks.split_at(both));
    let [State(a), State(b)] = states;
    for (of_a, of_b) in a_blocks.iter().zip(b_blocks) {
        compress256(a, std::slice::from_ref(of_a));
        compress256(b, std::slice::from_ref(of_b));
    }
    for (state, rest) in [(a, a_rest), (b, b_rest)] {
        if !rest.is_empty() {
            compress256(state, rest);
        }
    }
}

/// The last blocks of a message: what is left of it, and the padding of FIPS 180-4, section 5.1.1.
pub(crate) struct Tail {
    blocks: [Block; 2],
    count: usize,
}

impl Tail {
    /// Of a message of `len` bytes whose last, `rest`, make no whole block.
    pub(crate) fn new(rest: &[u8], len: u64) -> Self {
        let mut blocks = [[0; 64]; 2];
        let bytes = blocks.as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let count = if rest.len() < 64 - 8 { 1 } else { 2 };
        bytes[count * 64 - 8..count * 64].copy_from_slice(&(len * 8).to_be_bytes());
        Self { blocks, count }
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn digests(messages: [&[u8]; 2]) -> [[u8; 32]; 2] {
        let mut states = [State::START; 2];
        let chunks = messages.map(<[u8]>::as_chunks);
        let tails = [0, 1].map(|of| Tail::new(chunks[of].1, messages[of].len() as u64));
        compress(&mut states, chunks.map(|(blocks, _)| blocks));
        compress(&mut states, [tails[0].blocks(), tails[1].blocks()]);
        states.map(State::digest)
    }

    #[test]
    fn two_messages_of_every_length_have_the_digests_that_each_has_alone() {
        let text: Vec<u8> = (0..600u32).map(|n| (n * 7 + n / 256) as u8).collect();
        for len in 0..300 {
            let [a, b] = [&text[..len], &text[(len * 31) % 271..]];
            for messages in [[a, b], [b, a]] {
                let alone: [[u8; 32]; 2] = messages.map(|message| Sha256::digest(message).into());
                assert_eq!(digests(messages), alone, "{len}");
            }
        }
    }
}
