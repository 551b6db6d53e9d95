//! Where a request came from: its peer, or the client that a proxy speaks for.
//!
//! What a header says of that can be made up by anybody. It is believed of the proxies that the operator has named, and
//! of nobody else: `x-forwarded-for` is read from its end, where the nearest proxy has written, up to the first address
//! that is no such proxy's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actix_web::dev::RequestHead;
use actix_web::http::header::X_FORWARDED_FOR;
use ipnet::IpNet;

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Reads addresses and networks, with commas between them; the one that is neither if there is one.
    pub(in crate::http) fn read(list: &str) -> Result<Self, &str> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let network = |entry: &str| entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
        let networks: Result<Vec<_>, _> = entries.map(|entry| network(entry).map_err(|_| entry)).collect();
        networks.map(|networks| Self(networks.into()))
    }

    /// The address that a request came from.
    pub(in crate::http) fn client_addr(&self, head: &RequestHead) -> IpAddr {
        let peer = head.peer_addr.map_or(IpAddr::from([0; 4]), |peer| peer.ip().to_canonical());
        if !self.are_at(peer) {
            return peer;
        }
        let lines: Vec<&str> = head.headers.get_all(X_FORWARDED_FOR).map(|line| line.to_str().unwrap_or("?")).collect();
        let said = lines.iter().rev().flat_map(|line| line.rsplit(',')).map(|entry| address(entry.trim()));
        let mut client_addr = peer;
        for client in said {
            // Beyond what makes no sense nothing is believed: the proxy that wrote it has to answer for it.
            let Some(client) = client else { break };
            client_addr = client;
            if !self.are_at(client) {
                break;
            }
        }
        client_addr
    }

    fn are_at(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// As proxies write them: with a port or without, IPv6 in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn client_addr(proxies: &str, peer: &str, said: &[&str]) -> String {
        let mut request = TestRequest::default().peer_addr(peer.parse().unwrap());
        for line in said {
            request = request.append_header((X_FORWARDED_FOR, *line));
        }
        Proxies::read(proxies).unwrap().client_addr(request.to_http_request().head()).to_string()
    }

    #[test]
    fn a_proxy_is_believed_and_nobody_else() {
        const PROXIES: &str = "10.0.0.0/8, 192.168.1.1,2001:db8::/32";
        let rows: [(&str, &[&str], &str); 11] = [
            ("10.1.2.3:1", &["203.0.113.7"], "203.0.113.7"),
            ("203.0.113.9:1", &["203.0.113.7"], "203.0.113.9"),
            // What the client itself wrote stands before what the proxy added.
            ("10.1.2.3:1", &["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            ("10.1.2.3:1", &["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
            ("10.1.2.3:1", &["203.0.113.7, 10.9.9.9, 192.168.1.1"], "203.0.113.7"),
            ("10.1.2.3:1", &["10.0.0.4, 10.0.0.5"], "10.0.0.4"),
            ("10.1.2.3:1", &[], "10.1.2.3"),
            ("10.1.2.3:1", &["203.0.113.7, unknown"], "10.1.2.3"),
            ("10.1.2.3:1", &["203.0.113.7, unknown, 10.0.0.5"], "10.0.0.5"),
            ("[2001:db8::1]:1", &["[2001:470::7]:4711"], "2001:470::7"),
            ("[::ffff:10.1.2.3]:1", &["::ffff:203.0.113.7"], "203.0.113.7"),
        ];
        for (peer, said, from) in rows {
            assert_eq!(client_addr(PROXIES, peer, said), from, "{peer} {said:?}");
        }
        assert_eq!(client_addr("", "10.1.2.3:1", &["203.0.113.7"]), "10.1.2.3", "without proxies nobody is believed");
    }

    #[test]
    fn what_is_no_network_is_told() {
        for (list, wrong) in [("10.0.0.0/33", "10.0.0.0/33"), ("::1, proxy.example", "proxy.example")] {
            assert_eq!(Proxies::read(list).unwrap_err(), wrong);
        }
    }
}
