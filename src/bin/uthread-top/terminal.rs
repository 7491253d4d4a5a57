//! Keys, answers and signals, and a terminal that is left as it was found.
//!
//! Ways to end: a key; the server goes; a signal; a panic; the terminal goes. All but the last give the terminal back
//! first. Signals that ask for an end are blocked in all threads but one, which waits for them.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use uthread::inspect::protocol::{Snapshot, SnapshotRequest, Stack};

use crate::app::{Action, App};
use crate::client::Client;
use crate::screen;

/// What happens.
enum Message {
    Key(KeyEvent),
    /// The screen has another size, or must be drawn anew.
    Redraw,
    /// With the place in the list of its first row.
    Snapshot(Box<Snapshot>, usize),
    Stack(u64, Box<Stack>),
    Signal(Signal),
    Failed(io::Error),
}

/// What is to be asked.
enum Question {
    /// From now on.
    Snapshots(SnapshotRequest),
    Stack(u64),
    /// No more snapshots until the next question.
    Pause,
}

/// Shows it until the user has seen enough.
///
/// # Errors
///
/// The server, or the terminal, is gone.
pub(crate) fn run(
    client: Client,
    request: SnapshotRequest,
    delay: Duration,
) -> io::Result<ExitCode> {
    if !io::stdout().is_terminal() {
        return Err(io::Error::other("the output is no terminal; --once prints a table"));
    }
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    let (tell, messages) = mpsc::channel();
    let (ask, questions) = mpsc::channel();
    let (keys, answers) = (tell.clone(), tell.clone());
    // All of them end with the process.
    thread::spawn(move || wait_for_signals(signals, &tell));
    let terminal = ratatui::try_init()?;
    exit_after_panics();
    thread::spawn(move || read_keys(&keys));
    thread::spawn(move || ask_questions(client, delay, &questions, &answers));
    let ended = show(terminal, App::new(request, delay), &messages, &ask);
    ratatui::try_restore()?;
    ended
}

/// By then the terminal is as it was: that is what the hook before does.
fn exit_after_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
}

/// Draws what happens, until something ends it.
fn show(
    mut terminal: DefaultTerminal,
    mut app: App,
    messages: &Receiver<Message>,
    ask: &Sender<Question>,
) -> io::Result<ExitCode> {
    /// How soon it is seen that answers are late.
    const LOOK: Duration = Duration::from_secs(1);
    let mut asked = None;
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut app))?;
        // Of what is paused, another page may be wanted; it is of another time.
        let wanted = (app.request.clone(), app.paused);
        if asked.as_ref() != Some(&wanted) {
            let changed = asked.as_ref().is_none_or(|(request, _)| *request != wanted.0);
            if changed || !wanted.1 {
                // If nobody listens, the reason why is among the messages.
                let _ = ask.send(Question::Snapshots(wanted.0.clone()));
            }
            if wanted.1 {
                let _ = ask.send(Question::Pause);
            }
            asked = Some(wanted);
        }
        let mut next = match messages.recv_timeout(LOOK) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        // A key that is held down must not queue screens.
        while let Some(message) = next {
            match message {
                Message::Key(key) => match app.press(key) {
                    Action::Quit => return Ok(ExitCode::SUCCESS),
                    Action::Ask(id) => drop(ask.send(Question::Stack(id))),
                    Action::Nothing => {}
                },
                Message::Redraw => {}
                Message::Snapshot(snapshot, first) => app.receive(*snapshot, first),
                Message::Stack(id, stack) => app.receive_stack(id, *stack),
                // As the shell has it.
                Message::Signal(signal) => return Ok(ExitCode::from(128 + signal as u8)),
                Message::Failed(e) => return Err(e),
            }
            next = messages.try_recv().ok();
        }
    }
}

fn wait_for_signals(signals: SigSet, tell: &Sender<Message>) {
    if let Ok(signal) = signals.wait() {
        let _ = tell.send(Message::Signal(signal));
    }
}

fn read_keys(tell: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Message::Key(key),
            Ok(_) => Message::Redraw,
            Err(e) => Message::Failed(e),
        };
        let is_last = matches!(message, Message::Failed(_));
        if tell.send(message).is_err() || is_last {
            return;
        }
    }
}

/// Asks what is to be asked, and for a snapshot whenever that is due.
fn ask_questions(
    mut client: Client,
    delay: Duration,
    questions: &Receiver<Question>,
    tell: &Sender<Message>,
) {
    let mut wanted = None;
    let mut due = Instant::now();
    loop {
        let until_due = match wanted {
            Some(_) => due.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        let mut stack = None;
        let mut next = match questions.recv_timeout(until_due) {
            Ok(question) => Some(question),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut is_due = next.is_none();
        let mut paused = false;
        while let Some(question) = next {
            match question {
                Question::Snapshots(request) => (wanted, is_due) = (Some(request), true),
                Question::Stack(id) => stack = Some(id),
                Question::Pause => paused = true,
            }
            next = questions.try_recv().ok();
        }
        let answered = match (&wanted, stack) {
            (_, Some(id)) => client.stack(id).map(|s| Some(Message::Stack(id, Box::new(s)))),
            (Some(request), None) if is_due => {
                due = Instant::now() + delay;
                let message = |s| Some(Message::Snapshot(Box::new(s), request.offset));
                client.snapshot(request).map(message)
            }
            _ => Ok(None),
        };
        if paused {
            wanted = None;
        } else if stack.is_some() && is_due {
            // It was put off.
            due = Instant::now();
        }
        let failed = answered.is_err();
        let message = answered.unwrap_or_else(|e| Some(Message::Failed(e)));
        if message.is_some_and(|message| tell.send(message).is_err()) || failed {
            return;
        }
    }
}
