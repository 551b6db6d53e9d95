//! Fear: the kit that stands real Redis up for other tests does not do what it says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis::RedisResult;

use crate::kit::server::Kind;
use crate::kit::{Cluster, DURABLE, Direction, Proxy, Sentinels, Server, Then, until};

/// A client that waits at most so long for a reply.
fn through(proxy: &Proxy, patience: Duration) -> redis::Connection {
    let client = redis::Client::open(proxy.url()).unwrap();
    let connection = client.get_connection_with_timeout(Duration::from_secs(5)).unwrap();
    connection.set_read_timeout(Some(patience)).unwrap();
    connection
}

fn incr(connection: &mut redis::Connection, key: &str) -> RedisResult<i64> {
    redis::cmd("INCR").arg(key).query(connection)
}

const SOON: Duration = Duration::from_millis(150);
const PATIENT: Duration = Duration::from_secs(5);

#[test]
fn a_killed_server_comes_back_empty_on_its_port() {
    let mut server = Server::start(&[]);
    let port = server.port();
    server.ask::<()>("SET k v");
    let run: String = server.info("run_id");
    server.kill9();
    assert!(!server.is_running());
    assert!(TcpStream::connect(server.address()).is_err());
    server.restart();
    assert_eq!(server.port(), port);
    assert_ne!(server.info("run_id"), run);
    assert_eq!(server.ask::<Option<String>>("GET k"), None);
}

#[test]
fn a_durable_server_keeps_what_it_answered() {
    let mut server = Server::start(DURABLE);
    server.ask::<()>("SET k v");
    server.kill9();
    server.restart();
    assert_eq!(server.ask::<String>("GET k"), "v");
}

#[test]
fn a_stopped_server_answers_only_when_continued() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.set_read_timeout(Some(SOON)).unwrap();
    server.stop();
    let error = incr(&mut client, "k").unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    server.cont();
    until("the command that was sent to the stopped server", || server.ask::<Option<i64>>("GET k") == Some(1));
}

#[test]
fn a_dropped_server_is_gone_with_its_directory() {
    let server = Server::start(&[]);
    let (address, dir) = (server.address(), server.ask::<Vec<String>>("CONFIG GET dir").remove(1));
    server.stop();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    assert!(!std::path::Path::new(&dir).exists());
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_chosen_anew() {
    let mut taken = None;
    let tries = std::cell::Cell::new(0);
    let taken_port = std::cell::Cell::new(0);
    let squat = std::cell::RefCell::new(&mut taken);
    let server = Server::launch(Kind::Data, |port| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 {
            taken_port.set(port);
            **squat.borrow_mut() = Some(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
        }
        vec!["--save".to_owned(), String::new()]
    });
    assert_eq!(tries.get(), 2);
    assert_ne!(server.port(), taken_port.get());
}

#[test]
fn sentinels_elect_a_new_master_and_take_the_old_one_back() {
    let mut sentinels = Sentinels::start();
    let before = sentinels.master().port();
    sentinels.master().ask::<()>("SET k v");
    assert_eq!(sentinels.master().ask::<i64>("WAIT 2 5000"), 2);
    let dead = sentinels.kill_master();
    assert_eq!(dead, before);
    let now = sentinels.master();
    assert_ne!(now.port(), before);
    assert_eq!(now.ask::<String>("GET k"), "v");
    now.ask::<()>("SET k w");
    until("both survivors", || sentinels.master().info("connected_slaves") == "1");
    sentinels.revive(dead);
    assert_eq!(sentinels.server(dead).ask::<String>("GET k"), "w");
    assert_eq!(sentinels.hosts().split(',').count(), 3);
}

#[test]
fn clusters_move_slots_with_their_keys() {
    let cluster = Cluster::start();
    let slot = cluster.slot_of("foo");
    assert_eq!(slot, 12182);
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    cluster.nodes[from].ask::<()>("SET foo v");
    cluster.begin_move(slot, to);
    let asked = cluster.nodes[from].try_ask::<()>("GET {foo}absent").unwrap_err();
    assert!(asked.to_string().contains("ASK") || asked.code() == Some("ASK"), "{asked}");
    cluster.finish_move(slot, to);
    assert_eq!(cluster.owner(slot), to);
    assert_eq!(cluster.nodes[to].ask::<String>("GET foo"), "v");
    assert_eq!(cluster.nodes[from].try_ask::<()>("GET foo").unwrap_err().code(), Some("MOVED"));
}

#[test]
fn clusters_fail_over_with_and_without_the_old_master() {
    let mut cluster = Cluster::with_replicas(1);
    let slot = cluster.slot_of("foo");
    let first = cluster.owner(slot);
    cluster.nodes[first].ask::<()>("SET foo v");
    let second = cluster.failover(slot);
    assert_ne!(first, second);
    assert_eq!(cluster.nodes[second].ask::<String>("GET foo"), "v");
    until("the old master as a replica", || cluster.nodes[first].info("master_link_status") == "up");
    assert_eq!(cluster.kill_owner(slot), first);
    assert_eq!(cluster.nodes[first].ask::<String>("GET foo"), "v");
}

#[test]
fn the_proxy_forwards_and_counts() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let mut raw = TcpStream::connect(proxy.address()).unwrap();
    raw.write_all(b"PING\r\n*1\r\n$4\r\nPI").unwrap();
    raw.write_all(b"NG\r\n").unwrap();
    let mut pongs = [0; 14];
    raw.read_exact(&mut pongs).unwrap();
    assert_eq!(&pongs, b"+PONG\r\n+PONG\r\n");
    assert_eq!((proxy.connections(), proxy.open(), proxy.commands()), (1, 1, 2));
    assert_eq!(proxy.bytes(Direction::ToServer), 20);
    until("the count of what was delivered", || proxy.bytes(Direction::ToClient) == 14);
    drop(raw);
    until("the end of the connection", || proxy.open() == 0);
}

#[test]
fn the_proxy_loses_exactly_the_reply_that_it_should() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let mut client = through(&proxy, SOON);
    proxy.lose_reply_of("second", Then::Silence);
    assert_eq!(incr(&mut client, "first"), Ok(1));
    assert!(incr(&mut client, "second").unwrap_err().is_timeout());
    assert_eq!(server.ask::<i64>("GET second"), 1);
    assert_eq!(proxy.lost_replies(), 1);
    let mut raw = TcpStream::connect(proxy.address()).unwrap();
    raw.set_read_timeout(Some(SOON)).unwrap();
    proxy.lose_reply_of("silent", Then::Silence);
    raw.write_all(b"INCR silent\r\nINCR later\r\n").unwrap();
    assert_eq!(raw.read(&mut [0; 4]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(server.ask::<Vec<i64>>("MGET silent later"), [1, 1]);

    let mut client = through(&proxy, PATIENT);
    proxy.lose_reply_of("third", Then::Reset);
    let error = incr(&mut client, "third").unwrap_err();
    assert!(error.is_io_error() && !error.is_timeout(), "{error:?}");
    assert_eq!(server.ask::<i64>("GET third"), 1);

    let mut raw = TcpStream::connect(proxy.address()).unwrap();
    proxy.lose_replies(2, Then::GoOn);
    raw.write_all(b"INCR a\r\nINCR a\r\nINCR a\r\n").unwrap();
    let mut reply = [0; 4];
    raw.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b":3\r\n");
    assert_eq!(proxy.lost_replies(), 5);
}

#[test]
fn the_proxy_delivers_late_even_after_the_client_gave_up() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let mut client = through(&proxy, SOON);
    proxy.hold(Direction::ToServer);
    assert!(incr(&mut client, "k").unwrap_err().is_timeout());
    drop(client);
    assert_eq!(server.ask::<Option<i64>>("GET k"), None);
    proxy.delay(Direction::ToServer, Duration::from_millis(20));
    until("the late command", || server.ask::<Option<i64>>("GET k") == Some(1));
    proxy.heal();
    let late = Duration::from_millis(60);
    proxy.delay(Direction::ToClient, late);
    let began = std::time::Instant::now();
    assert_eq!(incr(&mut through(&proxy, PATIENT), "k"), Ok(2));
    assert!(began.elapsed() >= late);
}

#[test]
fn the_proxy_hangs_up_on_a_client_whose_command_is_still_on_its_way() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let mut client = through(&proxy, Duration::from_secs(20));
    proxy.lose_reply_of("late", Then::HangUp(Duration::from_millis(300)));
    let error = incr(&mut client, "late").unwrap_err();
    assert!(error.is_connection_dropped(), "{error:?}");
    assert_eq!(incr(&mut through(&proxy, Duration::from_secs(20)), "k").unwrap(), 1, "others are not late");
    until("the late command", || server.ask::<Option<i64>>("GET late") == Some(1));
}

#[test]
fn the_proxy_swallows_either_direction_until_healed() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let mut client = through(&proxy, SOON);
    proxy.black_hole(Direction::ToServer);
    assert!(incr(&mut client, "up").unwrap_err().is_timeout());
    proxy.heal();
    until("the reset of the torn connection", || proxy.open() == 0);
    assert_eq!(server.ask::<Option<i64>>("GET up"), None);

    let mut client = through(&proxy, SOON);
    proxy.black_hole(Direction::ToClient);
    assert!(incr(&mut client, "down").unwrap_err().is_timeout());
    assert_eq!(server.ask::<i64>("GET down"), 1);
    proxy.heal();
    assert_eq!(incr(&mut through(&proxy, PATIENT), "down"), Ok(2));
}

#[test]
fn the_proxy_resets_and_refuses_until_healed() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let mut raw = TcpStream::connect(proxy.address()).unwrap();
    raw.write_all(b"PING\r\n").unwrap();
    raw.read_exact(&mut [0; 7]).unwrap();
    proxy.reset();
    assert_eq!(raw.read(&mut [0; 7]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(incr(&mut through(&proxy, PATIENT), "k"), Ok(1));
    proxy.cut();
    let refused = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.heal();
    assert_eq!(incr(&mut through(&proxy, PATIENT), "k"), Ok(2));
}
