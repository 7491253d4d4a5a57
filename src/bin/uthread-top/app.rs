//! What is shown, and what keys do to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use uthread::inspect::protocol::{Snapshot, SnapshotRequest, Stack};

use crate::columns::{COLUMNS, beside, is_descending_at_first};

/// Rates that are remembered: the width of a screen.
const REMEMBERED: usize = 512;

/// All that the screen depends on.
pub(crate) struct App {
    pub(crate) snapshot: Option<Snapshot>,
    /// What is to be asked for next; the part of the list that is on the screen.
    pub(crate) request: SnapshotRequest,
    /// The place in the list of the first row of the snapshot: another page may have been wanted since.
    pub(crate) first: usize,
    /// The place in the list, from its beginning, of the thread that Enter means.
    pub(crate) selected: usize,
    /// The text of a search is typed, and what was searched for before.
    pub(crate) typing: Option<String>,
    /// The thread whose stack is shown.
    pub(crate) stack: Option<StackView>,
    /// Nothing is asked for.
    pub(crate) paused: bool,
    /// Switches per second, the last one last.
    pub(crate) rates: VecDeque<u64>,
    delay: Duration,
    heard: Instant,
    /// Switches, and the time in the server's life, when the last rate was taken.
    counted: Option<(u64, u64)>,
}

/// A stack on the screen.
pub(crate) struct StackView {
    pub(crate) id: u64,
    /// None until it has come.
    pub(crate) stack: Option<Stack>,
    /// Lines that are scrolled away.
    pub(crate) skipped: usize,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Quit,
    /// A thread's stack.
    Ask(u64),
}

impl App {
    pub(crate) fn new(request: SnapshotRequest, delay: Duration) -> App {
        App {
            snapshot: None,
            request: SnapshotRequest { limit: 0, offset: 0, ..request },
            first: 0,
            selected: 0,
            typing: None,
            stack: None,
            paused: false,
            rates: VecDeque::new(),
            delay,
            heard: Instant::now(),
            counted: None,
        }
    }

    /// Threads that match what is searched for.
    pub(crate) fn matching(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.threads.matching)
    }

    /// Whether answers are late.
    pub(crate) fn is_unheard(&self) -> bool {
        !self.paused && self.heard.elapsed() > 3 * self.delay + Duration::from_secs(1)
    }

    /// Lines are on the screen for so many threads.
    pub(crate) fn set_page(&mut self, lines: usize) {
        self.request.limit = lines;
        self.keep_in_sight();
    }

    /// A snapshot has come, whose rows are those from that place on.
    pub(crate) fn receive(&mut self, snapshot: Snapshot, first: usize) {
        self.first = first;
        self.heard = Instant::now();
        let switches = snapshot.counters.get("switches").copied().unwrap_or(0);
        let now = (switches, snapshot.uptime_ns);
        match self.counted {
            None => self.counted = Some(now),
            Some((before, at)) => {
                let span = now.1.saturating_sub(at);
                // Not for each that was asked for by a key.
                if span >= self.delay.as_nanos() as u64 / 2 {
                    let rate = switches.saturating_sub(before) as f64 / (span as f64 / 1e9);
                    self.rates.push_back(rate as u64);
                    self.counted = Some(now);
                }
            }
        }
        while self.rates.len() > REMEMBERED {
            self.rates.pop_front();
        }
        self.snapshot = Some(snapshot);
        self.keep_in_sight();
    }

    /// A stack has come.
    pub(crate) fn receive_stack(&mut self, id: u64, stack: Stack) {
        self.heard = Instant::now();
        if let Some(view) = self.stack.as_mut().filter(|view| view.id == id) {
            view.stack = Some(stack);
        }
    }

    /// A key was pressed.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.typing.is_some() {
            self.press_in_search(key.code);
            return Action::Nothing;
        }
        if self.stack.is_some() {
            return self.press_in_stack(key.code);
        }
        let page = self.request.limit.max(1);
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('/') => self.typing = Some(self.request.search.clone()),
            KeyCode::Esc => self.search_for(String::new()),
            KeyCode::Char('r') => self.request.descending = !self.request.descending,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Left | KeyCode::Char('<') => self.sort_beside(false),
            KeyCode::Right | KeyCode::Char('>') => self.sort_beside(true),
            KeyCode::Char(digit @ '1'..='9') => self.sort_by(digit as usize - '1' as usize),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(page)),
            KeyCode::PageDown => self.select(self.selected.saturating_add(page)),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Enter => return self.show_stack(),
            _ => {}
        }
        Action::Nothing
    }

    fn press_in_search(&mut self, key: KeyCode) {
        let Some(before) = self.typing.clone() else { return };
        let mut text = self.request.search.clone();
        match key {
            KeyCode::Enter => self.typing = None,
            KeyCode::Esc => {
                self.typing = None;
                self.search_for(before);
            }
            KeyCode::Backspace => {
                text.pop();
                self.search_for(text);
            }
            KeyCode::Char(c) if text.len() < 256 => {
                text.push(c);
                self.search_for(text);
            }
            _ => {}
        }
    }

    fn press_in_stack(&mut self, key: KeyCode) -> Action {
        let Some(view) = &mut self.stack else { return Action::Nothing };
        let last = view.stack.as_ref().map_or(0, |stack| stack.frames.len().saturating_sub(1));
        let page = self.request.limit.max(1);
        match key {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('r') => return Action::Ask(view.id),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Left => self.stack = None,
            KeyCode::Up | KeyCode::Char('k') => view.skipped = view.skipped.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => view.skipped = (view.skipped + 1).min(last),
            KeyCode::PageUp => view.skipped = view.skipped.saturating_sub(page),
            KeyCode::PageDown => view.skipped = (view.skipped + page).min(last),
            KeyCode::Home | KeyCode::Char('g') => view.skipped = 0,
            KeyCode::End | KeyCode::Char('G') => view.skipped = last,
            _ => {}
        }
        Action::Nothing
    }

    fn show_stack(&mut self) -> Action {
        let shown = self.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.rows);
        let row = self.selected.checked_sub(self.first).and_then(|row| shown.get(row));
        let Some(id) = row.map(|row| row.id) else { return Action::Nothing };
        self.stack = Some(StackView { id, stack: None, skipped: 0 });
        Action::Ask(id)
    }

    fn search_for(&mut self, text: String) {
        if self.request.search != text {
            self.request.search = text;
            self.request.offset = 0;
            self.selected = 0;
        }
    }

    fn sort_by(&mut self, place: usize) {
        let Some(style) = COLUMNS.get(place) else { return };
        if self.request.sort == style.column {
            self.request.descending = !self.request.descending;
        } else {
            self.request.sort = style.column;
            self.request.descending = is_descending_at_first(style.column);
        }
    }

    fn sort_beside(&mut self, right: bool) {
        self.request.sort = beside(self.request.sort, right);
        self.request.descending = is_descending_at_first(self.request.sort);
    }

    fn select(&mut self, place: usize) {
        self.selected = place;
        self.keep_in_sight();
    }

    /// The selected thread is in the list, and on the screen; and the screen is full if there are threads enough.
    fn keep_in_sight(&mut self) {
        let page = self.request.limit;
        if self.snapshot.is_some() {
            self.selected = self.selected.min(self.matching().saturating_sub(1));
        }
        let first = self.selected.saturating_sub(page.saturating_sub(1));
        let last = self.selected.min(self.matching().saturating_sub(page));
        self.request.offset = self.request.offset.clamp(first.min(last), self.selected).max(first);
        self.request.offset = self.request.offset.min(self.matching().saturating_sub(page));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uthread::inspect::protocol::{Census, Column, StackFrame, ThreadRow};

    /// A list of so many threads, of which a page of ten is on the screen.
    fn app(threads: usize) -> App {
        let mut app = App::new(SnapshotRequest::default(), Duration::from_secs(1));
        app.set_page(10);
        serve(&mut app, threads);
        app
    }

    /// Answers as a server would: the threads' numbers are their places.
    fn serve(app: &mut App, threads: usize) {
        let (offset, limit) = (app.request.offset, app.request.limit);
        let rows = (offset..threads.min(offset + limit))
            .map(|id| ThreadRow { id: id as u64, ..ThreadRow::default() });
        let snapshot = Snapshot {
            threads: Census { total: threads, matching: threads, ..Census::default() },
            rows: rows.collect(),
            ..Snapshot::default()
        };
        app.receive(snapshot, offset);
    }

    fn press(app: &mut App, keys: impl IntoIterator<Item = KeyCode>) -> Action {
        keys.into_iter().map(|key| app.press(key.into())).last().unwrap_or(Action::Nothing)
    }

    fn type_in(app: &mut App, text: &str) {
        press(app, text.chars().map(KeyCode::Char));
    }

    #[test]
    fn the_selected_thread_stays_on_the_screen() {
        let mut app = app(100_000);
        let at = |app: &App| (app.selected, app.request.offset);
        press(&mut app, [KeyCode::Down; 9]);
        assert_eq!(at(&app), (9, 0));
        press(&mut app, [KeyCode::Down]);
        assert_eq!(at(&app), (10, 1));
        press(&mut app, [KeyCode::Up; 3]);
        assert_eq!(at(&app), (7, 1));
        press(&mut app, [KeyCode::End]);
        assert_eq!(at(&app), (99_999, 99_990));
        press(&mut app, [KeyCode::Down, KeyCode::PageUp]);
        assert_eq!(at(&app), (99_989, 99_989));
        app.set_page(30);
        assert_eq!(at(&app), (99_989, 99_970), "a screen that grows is filled");
        serve(&mut app, 5);
        assert_eq!(at(&app), (4, 0), "the list has become shorter");
        press(&mut app, [KeyCode::Home]);
        assert_eq!(at(&app), (0, 0));
        serve(&mut app, 0);
        assert_eq!(press(&mut app, [KeyCode::PageDown, KeyCode::Enter]), Action::Nothing);
        assert_eq!(at(&app), (0, 0));
        app.set_page(0);
        assert_eq!(at(&app), (0, 0));
    }

    #[test]
    fn columns_are_chosen_and_reversed_by_keys() {
        let mut app = app(3);
        press(&mut app, [KeyCode::Char('4')]);
        assert_eq!((app.request.sort, app.request.descending), (Column::Share, true));
        press(&mut app, [KeyCode::Char('4')]);
        assert_eq!((app.request.sort, app.request.descending), (Column::Share, false));
        press(&mut app, [KeyCode::Right, KeyCode::Right]);
        assert_eq!((app.request.sort, app.request.descending), (Column::RunDelay, true));
        press(&mut app, [KeyCode::Char('1'), KeyCode::Char('r')]);
        assert_eq!((app.request.sort, app.request.descending), (Column::Id, true));
        press(&mut app, [KeyCode::Left]);
        assert_eq!(app.request.sort, Column::SpawnedAt);
    }

    #[test]
    fn a_search_begins_with_the_first_letter_and_can_be_taken_back() {
        let mut app = app(100);
        press(&mut app, [KeyCode::End, KeyCode::Char('/')]);
        type_in(&mut app, "q");
        assert_eq!((&*app.request.search, app.selected, app.request.offset), ("q", 0, 0));
        type_in(&mut app, "rs");
        press(&mut app, [KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((&*app.request.search, app.typing.is_some()), ("qr", false));
        press(&mut app, [KeyCode::Char('/')]);
        type_in(&mut app, "x");
        press(&mut app, [KeyCode::Esc]);
        assert_eq!(app.request.search, "qr");
        press(&mut app, [KeyCode::Esc]);
        assert_eq!(app.request.search, "");
    }

    #[test]
    fn enter_asks_for_the_stack_of_the_selected_thread() {
        let mut app = app(100);
        press(&mut app, [KeyCode::Down; 3]);
        assert_eq!(press(&mut app, [KeyCode::Enter]), Action::Ask(3));
        let frames = vec![StackFrame::default(); 4];
        app.receive_stack(99, Stack::default());
        assert!(app.stack.as_ref().unwrap().stack.is_none(), "another thread's");
        app.receive_stack(3, Stack { thread: None, frames });
        press(&mut app, [KeyCode::PageDown]);
        assert_eq!(app.stack.as_ref().unwrap().skipped, 3);
        assert_eq!(press(&mut app, [KeyCode::Char('r')]), Action::Ask(3));
        press(&mut app, [KeyCode::Esc]);
        assert!(app.stack.is_none() && app.selected == 3);
    }

    #[test]
    fn enter_means_a_thread_that_is_on_the_screen() {
        let mut app = app(100);
        assert_eq!(
            press(&mut app, [KeyCode::End, KeyCode::Enter]),
            Action::Nothing,
            "not there yet"
        );
        serve(&mut app, 100);
        assert_eq!(press(&mut app, [KeyCode::Enter]), Action::Ask(99));
    }

    #[test]
    fn q_quits_except_in_a_search() {
        let mut app = app(1);
        assert_eq!(press(&mut app, [KeyCode::Char('q')]), Action::Quit);
        assert_eq!(press(&mut app, [KeyCode::Char('/'), KeyCode::Char('q')]), Action::Nothing);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.press(interrupt), Action::Quit);
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let mut app = app(0);
        for (ms, switches) in [(1_000, 100), (1_100, 5_000), (2_000, 600), (4_000, 1_600)] {
            let counters = [("switches".to_owned(), switches)].into();
            let uptime_ns = ms * 1_000_000;
            app.receive(Snapshot { counters, uptime_ns, ..Snapshot::default() }, 0);
        }
        // From the first look, at 0: 100 in a second. The one after a tenth of a second does not count.
        assert_eq!(app.rates, [100, 500, 500]);
    }
}
