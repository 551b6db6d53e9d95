//! Fear: on a real terminal `leasehold run` gets in the way: its command cannot read, Ctrl-C and Ctrl-Z go wrong, the
//! terminal is left in a bad state; or what is meant for people comes out wrong.

use crate::cli::{self, BINARY, Server, Terminal, file, lives};
use crate::kit::{self, until};

fn run(server: &Server, words: &[&str]) -> Terminal {
    Terminal::start(&[&[BINARY, "run", "--key", "k"], words].concat(), &[("LEASEHOLD_SERVER", &server.url)])
}

#[test]
fn the_command_is_in_the_foreground_and_reads_what_is_typed() {
    let server = Server::start(&[]);
    // Of /proc/PID/stat: the process group, and the terminal's foreground group.
    let script = "cut -d' ' -f5,8 /proc/$$/stat; read line; echo \"got: $line\"; exit 5";
    let mut terminal = run(&server, &["--", "sh", "-c", script]);
    terminal.types("typed\n");
    let (code, screen) = terminal.end();
    assert_eq!(code, 5, "{screen}");
    assert!(screen.contains("got: typed"), "{screen}");
    let groups = screen.lines().find(|line| line.split(' ').all(|word| word.trim().parse::<u32>().is_ok())).unwrap();
    let (own, foreground) = groups.trim().split_once(' ').unwrap();
    assert_eq!(own, foreground, "{screen}");
}

#[test]
fn a_command_that_reads_at_once_is_not_left_stopped() {
    let server = Server::start(&[]);
    for _ in 0..10 {
        let mut terminal = run(&server, &["--", "head", "-n", "1"]);
        terminal.types("x\n");
        assert_eq!(terminal.end().0, 0);
    }
}

#[test]
fn ctrl_c_ends_the_command_or_the_waiting() {
    let server = Server::start(&[]);
    let mut terminal = run(&server, &["--", "sh", "-c", "echo begun; while :; do sleep 0.02; done"]);
    terminal.shows("begun");
    terminal.types("\x03");
    assert_eq!(terminal.end().0, 128 + 2);
    let mut trapped = run(&server, &["--", "sh", "-c", "trap 'exit 9' INT; echo begun; while :; do sleep 0.02; done"]);
    trapped.shows("begun");
    trapped.types("\x03");
    assert_eq!(trapped.end().0, 9);
    let _held = server.holds("k", &[]);
    let mut waits = run(&server, &["--", "echo", "ran"]);
    until("the waiter", || server.total("waiting") == 1);
    waits.types("\x03");
    assert_eq!(waits.end().0, 128 + 2);
    until("an empty queue", || server.total("waiting") == 0);
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_gives_it_back() {
    let server = Server::start(&[]);
    let mut shell = Terminal::shell(&server);
    shell.types("$L run --key k --ttl 60s -- sh -c 'echo begun; read line; echo \"got: $line\"'\n");
    shell.shows("begun");
    shell.types("\x1a");
    shell.shows("Stopped");
    shell.shows("ready> ");
    shell.types("echo shell has it\n");
    shell.shows("shell has it\r\n");
    assert_eq!(server.total("active"), 1);
    shell.types("fg\n");
    shell.shows("run --key k");
    shell.types("typed\n");
    shell.shows("got: typed");
    shell.types("echo code $?\n");
    shell.shows("code 0");
    until("the release", || server.total("active") == 0);
    shell.types("exit\n");
    shell.end();
}

#[test]
fn ctrl_z_stops_what_has_left_the_commands_group_and_fg_has_it_go_on() {
    let server = Server::start(&[]);
    let (path, on) = (server.path("ticks"), server.path("on"));
    std::fs::write(&on, "").unwrap();
    let mut shell = Terminal::shell(&server);
    // After its words it starts no process: a shell that is stopped between `vfork` and `exec` cannot stop itself.
    shell.types(&format!(
        "$L run --key k --ttl 60s -- sh -c 'setsid sh -c \"while [ -e {1} ]; do echo . >> {0}; sleep 0.02; done\" & \
         echo begun; read line'\n",
        path.display(),
        on.display()
    ));
    shell.shows("begun\r\n");
    let ticks = || std::fs::metadata(&path).map_or(0, |file| file.len());
    until("ticks", || ticks() > 0);
    shell.types("\x1a");
    shell.shows("Stopped");
    let stopped = ticks();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(ticks(), stopped, "it works on without a lock");
    shell.types("fg\n");
    until("more ticks", || ticks() > stopped);
    std::fs::remove_file(&on).unwrap();
    shell.types("\x03");
    until("the release", || server.total("active") == 0);
    shell.types("exit\n");
    shell.end();
}

#[test]
fn ctrl_z_where_no_shell_could_go_on_stops_nothing() {
    let server = Server::start(&[]);
    let mut terminal = run(&server, &["--", "sh", "-c", "echo begun; read line; echo \"got: $line\""]);
    terminal.shows("begun");
    terminal.types("\x1a");
    terminal.shows("^Z");
    terminal.types("typed\n");
    terminal.shows("got: typed");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn a_command_whose_lock_ran_out_while_it_was_stopped_does_not_go_on() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let mut shell = Terminal::shell(&server);
    // It starts no process: a shell that is stopped between `vfork` and `exec` of its child cannot stop itself.
    let script = format!(
        "$L run --key k --ttl 3s -- sh -c 'trap \"echo went on > {0}\" CONT; echo begun; read line'\n",
        path.display()
    );
    shell.types(&script);
    shell.shows("begun");
    shell.types("\x1a");
    shell.shows("Stopped");
    until("the end of the lock", || server.total("active") == 0);
    shell.types("fg\n");
    shell.shows("the lock is lost");
    shell.shows("ready> ");
    shell.types("echo code $?\n");
    shell.shows("code 75");
    assert!(!path.exists(), "it did not run without its lock");
    shell.types("exit\n");
    shell.end();
}

#[test]
fn in_the_background_it_leaves_the_terminal_to_others() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let mut shell = Terminal::shell(&server);
    shell.types(&format!("$L run --key k -- sh -c 'echo $$ > {}; exec sleep 60' &\n", path.display()));
    let process = file(&path);
    shell.types("echo shell has it\n");
    shell.shows("shell has it\r\n");
    assert!(lives(&process));
    shell.types("kill -TERM %1; wait %1; echo code $?\n");
    shell.shows("code 143");
    assert!(!lives(&process));
    shell.types("exit\n");
    shell.end();
}

#[test]
fn a_terminal_that_a_killed_command_left_raw_is_put_right() {
    let server = Server::start(&[]);
    let mut shell = Terminal::shell(&server);
    shell.types("stty echo; $L run --key k -- sh -c 'stty raw -echo; kill -9 $$'; stty -a | tr ';' '\\n'\n");
    shell.shows("speed");
    let modes = shell.shows("echoke");
    let has = |mode: &str| modes.split_whitespace().any(|word| word == mode);
    assert!(has("echo") && has("icanon") && has("opost"), "{modes}");
    shell.types("exit\n");
    shell.end();
}

#[test]
fn tables_have_headings_and_colours_unless_no_color_says_otherwise() {
    let server = Server::start(&[]);
    let _held = server.holds("order:42", &["--owner", "me"]);
    let ls = |more: &[(&str, &str)]| {
        let variables = [&[("LEASEHOLD_SERVER", server.url.as_str())], more].concat();
        Terminal::start(&[BINARY, "ls"], &variables).end()
    };
    let (code, coloured) = ls(&[]);
    assert!(code == 0 && coloured.contains("\x1b[1mKEY") && coloured.contains("order:42  exclusive  me"), "{coloured}");
    let (_, plain) = ls(&[("NO_COLOR", "1")]);
    assert!(plain.starts_with("KEY") && !plain.contains('\x1b'), "{plain}");
    let (_, empty) = ls(&[("NO_COLOR", "")]);
    assert!(empty.contains('\x1b'), "an empty NO_COLOR says nothing");
}

#[test]
fn ls_watch_draws_in_place_until_ctrl_c() {
    let server = Server::start(&[]);
    let words = [BINARY, "ls", "--watch", "--every", "20ms"];
    let mut terminal = Terminal::start(&words, &[("LEASEHOLD_SERVER", &server.url)]);
    terminal.shows("\x1b[?1049h");
    terminal.shows("nothing is locked");
    let _held = server.holds("order:42", &[]);
    terminal.shows("order:42");
    terminal.shows("\x1b[H");
    terminal.types("\x03");
    terminal.shows("\x1b[?1049l");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn ls_watch_goes_on_while_the_server_does_not_answer() {
    let port = kit::port::Port::choose();
    let listen = format!("127.0.0.1:{}", port.number);
    let start = || Server::launch(cli::command(BINARY, &["serve", "--grace", "0s", "--listen", &listen]));
    let server = start();
    let words = [BINARY, "ls", "--watch", "--every", "50ms"];
    let mut terminal = Terminal::start(&words, &[("LEASEHOLD_SERVER", &server.url)]);
    let _held = server.holds("order:42", &[]);
    terminal.shows("order:42");
    drop(server);
    terminal.shows("not up to date: cannot reach");
    let server = start();
    let _held = server.holds("order:43", &[]);
    terminal.shows("order:43");
    terminal.types("\x03");
    terminal.shows("\x1b[?1049l");
}

#[test]
fn force_release_asks_whether_it_is_meant() {
    let server = Server::start(&[]);
    let _held = server.holds("k", &[]);
    for (answer, code, active) in [("n", 1, 1), ("", 1, 1), ("y", 0, 0)] {
        let mut terminal = Terminal::start(&[BINARY, "force-release", "k"], &[("LEASEHOLD_SERVER", &server.url)]);
        terminal.shows("[y/N]");
        terminal.types(&format!("{answer}\n"));
        assert_eq!(terminal.end().0, code, "{answer:?}");
        assert_eq!(server.total("active"), active, "{answer:?}");
    }
}

#[test]
fn bench_shows_how_far_it_is_and_a_table_of_latencies() {
    let server = Server::start(&[]);
    let words = [BINARY, "bench", "--for", "500ms", "--clients", "2"];
    let (code, screen) = Terminal::start(&words, &[("LEASEHOLD_SERVER", &server.url)]).end();
    assert_eq!(code, 0, "{screen}");
    assert!(
        screen.contains(" %") && screen.contains("P99.9") && screen.contains("below  ") && screen.contains(" ms #"),
        "{screen}"
    );
    assert_eq!(server.total("active"), 0);
}
