//! Asks hosts for an echo (ICMP) and reads the answers. Judges nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket as StdSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const HEADER: usize = 8;
const IP_HEADER: usize = 20;
/// "This packet is too long for the device": as silent as one that is lost on the way.
const TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();

/// A raw socket; needs CAP_NET_RAW.
pub struct Echo {
    socket: UdpSocket,
    /// For packets whose IP header is ours; opened when needed.
    whole: Option<UdpSocket>,
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
        let socket = raw(ipproto::ICMP)?;
        let mut identifier = [0; 2];
        getrandom::fill(&mut identifier).map_err(io::Error::other)?;
        Ok(Self { socket, whole: None, identifier, sequence: 0 })
    }

    /// Asks one host; returns the question's number. An address without a route is as silent as a dark host.
    ///
    /// # Errors
    /// The question could not leave this host for a reason of our own.
    pub async fn ask(&mut self, address: Ipv4Addr) -> io::Result<u16> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.identifier, self.sequence, HEADER);
        sent(self.socket.send_to(&request, (address, 0)).await).map(|()| self.sequence)
    }

    /// Asks with a packet of `size` bytes, IP header included, which nobody may cut into pieces. The answer is as large.
    ///
    /// # Errors
    /// As with [`Self::ask`].
    pub async fn ask_whole(&mut self, address: Ipv4Addr, size: u16) -> io::Result<u16> {
        self.sequence = self.sequence.wrapping_add(1);
        let packet = whole(self.identifier, self.sequence, address, size);
        let socket = match self.whole.take() {
            Some(socket) => socket,
            None => raw(ipproto::RAW)?,
        };
        let result = socket.send_to(&packet, (address, 0)).await;
        self.whole = Some(socket);
        sent(result).map(|()| self.sequence)
    }

    /// The next host that answered, and the number of the question.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub async fn answer(&self) -> io::Result<(Ipv4Addr, u16)> {
        let mut packet = [0; 576];
        loop {
            let (length, from) = match self.socket.recv_from(&mut packet).await {
                Err(error) if unreachable(&error) => continue,
                received => received?,
            };
            if let IpAddr::V4(from) = from.ip()
                && let Some(sequence) = answer_to(&packet[..length], self.identifier)
            {
                return Ok((from, sequence));
            }
        }
    }
}

/// Only `sendto` and `recvfrom` are used, which are the same for raw and UDP sockets.
fn raw(protocol: rustix::net::Protocol) -> io::Result<UdpSocket> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(protocol))?;
    UdpSocket::from_std(StdSocket::from(socket))
}

/// What never left counts as lost on the way.
fn sent(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !unreachable(&error) && error.raw_os_error() != Some(TOO_LONG) => Err(error),
        _ => Ok(()),
    }
}

fn unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

/// An IPv4 packet with "don't fragment"; the kernel fills in its length, checksum, number and our address.
fn whole(identifier: [u8; 2], sequence: u16, to: Ipv4Addr, size: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(to.octets());
    packet.extend(request(identifier, sequence, usize::from(size).saturating_sub(IP_HEADER)));
    packet
}

/// An echo request of `length` bytes; what follows the header is zero, and no part of the sum.
fn request(identifier: [u8; 2], sequence: u16, length: usize) -> Vec<u8> {
    let [high, low] = sequence.to_be_bytes();
    let mut packet = [ECHO_REQUEST, 0, 0, 0, identifier[0], identifier[1], high, low];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = packet.to_vec();
    packet.resize(length.max(HEADER), 0);
    packet
}

/// The number of the question, if a received packet, with its IPv4 header, is an echo reply to us.
fn answer_to(packet: &[u8], identifier: [u8; 2]) -> Option<u16> {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let icmp = packet.get(header..).filter(|icmp| header >= IP_HEADER && icmp.len() >= HEADER)?;
    let ours = icmp[0] == ECHO_REPLY && icmp[4..6] == identifier;
    ours.then(|| u16::from_be_bytes([icmp[6], icmp[7]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_checksum_of_rfc_1071() {
        // Type 8, identifier 0x1234, sequence 1: 0x0800 + 0x1234 + 0x0001 = 0x1a35, complement 0xe5ca.
        assert_eq!(request([0x12, 0x34], 1, HEADER), [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        let long = whole([0x12, 0x34], 1, Ipv4Addr::LOCALHOST, 1_370);
        assert_eq!((long.len(), &long[20..28]), (1_370, &request([0x12, 0x34], 1, HEADER)[..]));
        assert_eq!(long[6], 0x40, "nobody may cut it into pieces");
    }

    #[test]
    fn only_an_answer_to_us_counts() {
        let packet = |kind: u8, identifier: u8| {
            let mut packet = vec![0x45; 20];
            packet.extend([kind, 0, 0, 0, 0, identifier, 0, 1]);
            packet
        };
        assert_eq!(answer_to(&packet(0, 7), [0, 7]), Some(1));
        assert_eq!(answer_to(&packet(0, 8), [0, 7]), None, "another program's");
        assert_eq!(answer_to(&packet(8, 7), [0, 7]), None, "our own question, seen on loopback");
        assert_eq!(answer_to(&packet(0, 7)[..25], [0, 7]), None, "cut short");
        assert_eq!(answer_to(&[], [0, 7]), None);
    }

    #[tokio::test]
    async fn loopback_answers() {
        let Ok(mut echo) = Echo::open() else {
            eprintln!("SKIPPED: needs root");
            return;
        };
        let sequence = echo.ask(Ipv4Addr::LOCALHOST).await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), echo.answer());
        assert_eq!(answer.await.unwrap().unwrap(), (Ipv4Addr::LOCALHOST, sequence));
        let sequence = echo.ask_whole(Ipv4Addr::LOCALHOST, 1_370).await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), echo.answer());
        assert_eq!(answer.await.unwrap().unwrap(), (Ipv4Addr::LOCALHOST, sequence));
    }
}
