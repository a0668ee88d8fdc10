//! Asks hosts for an echo (ICMP) and reads the answers. Judges nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket as StdSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const HEADER: usize = 8;

/// A raw socket; needs CAP_NET_RAW.
pub struct Echo {
    socket: UdpSocket,
    /// Tells our answers from those to other programs.
    identifier: [u8; 2],
    sequence: u16,
}

impl Echo {
    /// Opens the socket.
    ///
    /// # Errors
    /// Not allowed, or no more sockets.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?;
        // Only `sendto` and `recvfrom` are used, which are the same for raw and UDP sockets.
        let socket = UdpSocket::from_std(StdSocket::from(socket))?;
        let mut identifier = [0; 2];
        getrandom::fill(&mut identifier).map_err(io::Error::other)?;
        Ok(Self { socket, identifier, sequence: 0 })
    }

    /// Asks one host. An address without a route is as silent as a dark host.
    ///
    /// # Errors
    /// The question could not leave this host for a reason of our own.
    pub async fn ask(&mut self, address: Ipv4Addr) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.identifier, self.sequence);
        match self.socket.send_to(&request, (address, 0)).await {
            Ok(_) => Ok(()),
            Err(error) if unreachable(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next host that answered.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub async fn answer(&self) -> io::Result<Ipv4Addr> {
        let mut packet = [0; 576];
        loop {
            let (length, from) = match self.socket.recv_from(&mut packet).await {
                Err(error) if unreachable(&error) => continue,
                received => received?,
            };
            if let IpAddr::V4(from) = from.ip()
                && is_answer(&packet[..length], self.identifier)
            {
                return Ok(from);
            }
        }
    }
}

fn unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

fn request(identifier: [u8; 2], sequence: u16) -> [u8; HEADER] {
    let [high, low] = sequence.to_be_bytes();
    let mut packet = [ECHO_REQUEST, 0, 0, 0, identifier[0], identifier[1], high, low];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Whether a received packet, with its IPv4 header, is an echo reply to us.
fn is_answer(packet: &[u8], identifier: [u8; 2]) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let Some(icmp) = packet.get(header..).filter(|icmp| header >= 20 && icmp.len() >= HEADER) else {
        return false;
    };
    icmp[0] == ECHO_REPLY && icmp[4..6] == identifier
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_checksum_of_rfc_1071() {
        // Type 8, identifier 0x1234, sequence 1: 0x0800 + 0x1234 + 0x0001 = 0x1a35, complement 0xe5ca.
        assert_eq!(request([0x12, 0x34], 1), [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
    }

    #[test]
    fn only_an_answer_to_us_counts() {
        let packet = |kind: u8, identifier: u8| {
            let mut packet = vec![0x45; 20];
            packet.extend([kind, 0, 0, 0, 0, identifier, 0, 1]);
            packet
        };
        assert!(is_answer(&packet(0, 7), [0, 7]));
        assert!(!is_answer(&packet(0, 8), [0, 7]), "another program's");
        assert!(!is_answer(&packet(8, 7), [0, 7]), "our own question, seen on loopback");
        assert!(!is_answer(&packet(0, 7)[..25], [0, 7]), "cut short");
        assert!(!is_answer(&[], [0, 7]));
    }

    #[tokio::test]
    async fn loopback_answers() {
        let Ok(mut echo) = Echo::open() else {
            eprintln!("SKIPPED: needs root");
            return;
        };
        echo.ask(Ipv4Addr::LOCALHOST).await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), echo.answer());
        assert_eq!(answer.await.unwrap().unwrap(), Ipv4Addr::LOCALHOST);
    }
}
