//! For each mask of eight bits, where the eight elements come from among the values.

/// Bytes of words: two for each place; those of no value are above 127, which shuffles take for nought.
pub(super) static WORDS: [[u8; 16]; 256] = words();
/// Indices of floats: one for each place, negative where there is no value.
#[cfg(target_arch = "x86_64")]
pub(super) static FLOATS: [[i8; 8]; 256] = floats();

const fn floats() -> [[i8; 8]; 256] {
    let mut table = [[-1; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut place, mut next) = (0, 0);
        while place < 8 {
            if mask >> place & 1 == 1 {
                table[mask][place] = next;
                next += 1;
            }
            place += 1;
        }
        mask += 1;
    }
    table
}

const fn words() -> [[u8; 16]; 256] {
    let (floats, mut table) = (floats(), [[0xff; 16]; 256]);
    let mut mask = 0;
    while mask < 256 {
        let mut place = 0;
        while place < 8 {
            if floats[mask][place] >= 0 {
                table[mask][2 * place] = 2 * floats[mask][place] as u8;
                table[mask][2 * place + 1] = table[mask][2 * place] + 1;
            }
            place += 1;
        }
        mask += 1;
    }
    table
}
