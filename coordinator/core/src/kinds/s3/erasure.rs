//! What a layout of drives keeps when hosts are lost: parity and quorums, as measured of the server. Pure arithmetic.

/// Most drives of one service: one set, so that every object has the same quorums.
pub const DRIVES_MAX: u32 = 16;

/// Hosts, drives and how objects are spread over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// Hosts, one member each.
    pub hosts: u32,
    /// Drives of each host.
    pub drives: u32,
    /// Drives whose loss every object survives.
    pub parity: u32,
}

impl Erasure {
    /// The server's own choice of parity.
    pub const fn default_parity(total: u32) -> u32 {
        match total {
            0 | 1 => 0,
            2 | 3 => 1,
            4 | 5 => 2,
            6 | 7 => 3,
            _ => 4,
        }
    }

    /// All drives.
    pub const fn total(&self) -> u32 {
        self.hosts * self.drives
    }

    /// Drives that must answer for a read.
    pub const fn read_quorum(&self) -> u32 {
        self.total() - self.parity
    }

    /// Drives that must answer for a write: one more when parity is half of all, so that two halves never both write.
    pub const fn write_quorum(&self) -> u32 {
        let data = self.total() - self.parity;
        if data == self.parity { data + 1 } else { data }
    }

    /// Writes go on when one host is lost.
    pub const fn host_loss_keeps_writes(&self) -> bool {
        self.total() - self.drives >= self.write_quorum()
    }

    /// The share of the drives that objects can fill, in percent.
    pub const fn usable_percent(&self) -> u32 {
        (self.total() - self.parity) * 100 / self.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts, drives, parity, read quorum, write quorum, whether a host's loss keeps writes: as measured.
    const MEASURED: [(u32, u32, u32, u32, u32, bool); 9] = [
        (1, 4, 2, 2, 3, false),
        (2, 1, 1, 1, 2, false),
        (2, 2, 2, 2, 3, false),
        (3, 1, 1, 2, 2, true),
        (3, 2, 3, 3, 4, true),
        (3, 2, 2, 4, 4, true),
        (4, 1, 2, 2, 3, true),
        (4, 1, 1, 3, 3, true),
        (4, 2, 4, 4, 5, true),
    ];

    #[test]
    fn quorums_are_those_that_were_measured() {
        for (hosts, drives, parity, read, write, keeps) in MEASURED {
            let it = Erasure { hosts, drives, parity };
            let found = (it.read_quorum(), it.write_quorum(), it.host_loss_keeps_writes());
            assert_eq!(found, (read, write, keeps), "{it:?}");
        }
        let defaults: Vec<u32> = [1, 2, 3, 4, 6, 8, 16].map(Erasure::default_parity).to_vec();
        assert_eq!(defaults, [0, 1, 1, 2, 3, 4, 4]);
    }

    #[test]
    fn every_layout_that_is_offered_survives_a_host() {
        for (hosts, drives) in (3..=DRIVES_MAX).flat_map(|hosts| (1..=4).map(move |drives| (hosts, drives))) {
            if hosts * drives <= DRIVES_MAX {
                let it = Erasure { hosts, drives, parity: Erasure::default_parity(hosts * drives) };
                assert!(it.host_loss_keeps_writes(), "{it:?}");
            }
        }
    }
}
