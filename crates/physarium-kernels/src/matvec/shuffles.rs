//! Shuffle tables: for each 8-bit mask, the index of the value that each of eight positions takes.

/// Byte indices for 16-bit words: two per position. Positions without a value have indices above 127, for which
/// shuffles return zero.
pub(super) static WORDS: [[u8; 16]; 256] = words();
/// Float indices: one per position; negative for positions without a value.
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
