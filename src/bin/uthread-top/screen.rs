//! Drawing.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Sparkline, Table};
use uthread::inspect::protocol::{GroupRow, Snapshot, ThreadRow, TimesRow, WorkerRow};

use crate::app::{App, StackView};
use crate::columns::{self, shown};
use crate::format::{bytes, clean, count, grouped, label, percent, time};

/// Lines for workers, for groups, and for times, at most.
const MOST_LINES: usize = 8;
/// The least width for a worker.
const WORKER_WIDTH: u16 = 38;
/// The width for times of a kind.
const TIMES_WIDTH: u16 = 39;
/// Screens with fewer lines have none for times.
const TIMES_FROM: u16 = 20;
const HEADING: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws all of it, and says how many threads have room.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let Some(snapshot) = &app.snapshot else {
        frame.render_widget("connected; waiting for the first answer", area);
        app.set_page(usize::from(area.height));
        return;
    };
    let room = usize::from(area.height / 4).min(MOST_LINES);
    let across = usize::from(area.width / WORKER_WIDTH).max(1);
    let worker_lines = snapshot.workers.len().div_ceil(across).min(room);
    let group_lines = snapshot.groups.len().min(room);
    // Which lines there are must not change from look to look.
    let times: Vec<_> = snapshot.times.iter().filter(|times| times.total > 0).collect();
    let times_across = usize::from(area.width / TIMES_WIDTH).max(1);
    let times_lines = match times.len().div_ceil(times_across).min(room) {
        0 => 0,
        _ if area.height < TIMES_FROM => 0,
        lines => 1 + lines,
    };
    let heights = [1, 2, worker_lines as u16, 1 + group_lines as u16, times_lines as u16];
    let heights = heights.map(Constraint::Length);
    let [title, rates, workers, groups, latencies, rest, help] =
        Layout::vertical(heights.into_iter().chain([Constraint::Min(0), Constraint::Length(1)]))
            .areas(area);

    draw_title(frame, title, app, snapshot);
    draw_rates(frame, rates, app);
    draw_workers(frame, workers, &snapshot.workers, across);
    draw_groups(frame, groups, &snapshot.groups);
    draw_times(frame, latencies, &times, times_across);
    match &app.stack {
        Some(view) => draw_stack(frame, rest, view),
        None => draw_threads(frame, rest, app, &snapshot.rows),
    }
    draw_help(frame, help, app);
    app.set_page(usize::from(rest.height.saturating_sub(1)));
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, app: &App, snapshot: &Snapshot) {
    let threads = &snapshot.threads;
    let state = if app.is_unheard() {
        " NO ANSWER ".black().on_red()
    } else if app.paused {
        " PAUSED ".black().on_yellow()
    } else {
        Span::default()
    };
    let text = format!(
        " (pid {}) up {}  {} threads: {} running, {} runnable, {} waiting, {} blocked ",
        snapshot.pid,
        time(snapshot.uptime_ns),
        grouped(threads.total),
        grouped(threads.running),
        grouped(threads.runnable),
        grouped(threads.waiting),
        grouped(threads.blocked)
    );
    let line = Line::from(vec![clean(&snapshot.program).bold(), text.into(), state]);
    frame.render_widget(line, area);
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let [left, right] =
        Layout::horizontal([Constraint::Length(18), Constraint::Min(0)]).areas(area);
    let last = app.rates.back().copied().unwrap_or(0);
    let label = vec![Line::from("switches"), Line::from(format!("{}/s", count(last)).bold())];
    frame.render_widget(Paragraph::new(label), left);
    // The newest at the right edge.
    let room = usize::from(right.width);
    let rates: Vec<u64> =
        app.rates.iter().skip(app.rates.len().saturating_sub(room)).copied().collect();
    let empty = room - rates.len();
    let right = Rect { x: right.x + empty as u16, width: rates.len() as u16, ..right };
    frame.render_widget(Sparkline::default().data(&rates).style(Color::Cyan), right);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, workers: &[WorkerRow], across: usize) {
    let lines = usize::from(area.height);
    let columns = Layout::horizontal(vec![Constraint::Fill(1); across]).split(area);
    for (workers, area) in workers.chunks(lines.max(1)).zip(columns.iter()) {
        let text: Vec<_> = workers.iter().map(|w| worker_line(w, area.width)).collect();
        frame.render_widget(Paragraph::new(text), *area);
    }
}

/// As ` 0 [||||||        45.2%]   3 name`.
fn worker_line(worker: &WorkerRow, width: u16) -> Line<'static> {
    let inside = usize::from(width / 2).saturating_sub(6);
    let label = format!("{}%", percent(worker.busy));
    let room = inside.saturating_sub(label.len());
    let full = ((worker.busy * inside as f64).round() as usize).min(room);
    let colour = if worker.busy > 0.9 { Color::Red } else { Color::Green };
    let runs = match (worker.thread, worker.thread_name.as_deref()) {
        (Some(id), None) => id.to_string(),
        (_, name) => clean(name.unwrap_or("-")),
    };
    Line::from(vec![
        format!("{:>3} [", worker.index).into(),
        Span::styled("|".repeat(full), colour),
        format!("{label:>width$}] ", width = inside - full).into(),
        format!("{:>3} queued ", worker.queued).dim(),
        runs.into(),
    ])
}

fn draw_groups(frame: &mut Frame<'_>, area: Rect, groups: &[GroupRow]) {
    let mut groups: Vec<_> = groups.iter().collect();
    groups.sort_by(|a, b| b.share.total_cmp(&a.share));
    let row = |group: &&GroupRow| {
        let numbers = [
            group.weight.to_string(),
            grouped(group.threads),
            percent(group.share),
            time(group.mean_delay_ns),
            count(group.turns),
        ];
        let numbers = numbers.map(|n| Line::from(n).alignment(Alignment::Right));
        Row::new([Line::from(clean(&group.name))].into_iter().chain(numbers))
    };
    let titles = ["WEIGHT", "THREADS", "CPU%", "DELAY/TURN", "TURNS"];
    let titles = titles.map(|t| Line::from(t).alignment(Alignment::Right));
    let more = groups.len().saturating_sub(usize::from(area.height.saturating_sub(1)));
    let first = if more > 0 { format!("GROUP (+{more})") } else { "GROUP".to_owned() };
    let widths = [16, 7, 9, 6, 11, 7].map(Constraint::Length);
    let table = Table::new(groups.iter().map(row), widths)
        .header(Row::new([Line::from(first)].into_iter().chain(titles)).style(HEADING));
    frame.render_widget(table, area);
}

fn draw_times(frame: &mut Frame<'_>, area: Rect, times: &[&TimesRow], across: usize) {
    let [heading, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new("").style(HEADING), heading);
    let columns =
        |area| Layout::horizontal(vec![Constraint::Length(TIMES_WIDTH); across]).split(area);
    let (titles, cells) = (columns(heading), columns(rest));
    let line = |texts: [String; 4]| {
        let [name, p50, p99, max] = texts;
        Line::from(format!("{name:<14} {p50:>7} {p99:>7} {max:>7}"))
    };
    // Side by side, so that the first ones stay first.
    for (column, (title, cell)) in titles.iter().zip(cells.iter()).enumerate() {
        let own: Vec<_> = times.iter().skip(column).step_by(across).collect();
        if own.is_empty() {
            break;
        }
        let names = ["TIMES", "P50", "P99", "MAX"].map(str::to_owned);
        frame.render_widget(Paragraph::new(line(names)).style(HEADING), *title);
        let text = |row: &&&TimesRow| {
            let all = [row.p50_ns, row.p99_ns, row.max_ns];
            let [p50, p99, max] = all.map(|ns| if row.count > 0 { time(ns) } else { "-".into() });
            line([label(row), p50, p99, max])
        };
        frame.render_widget(Paragraph::new(own.iter().map(text).collect::<Vec<_>>()), *cell);
    }
}

fn draw_threads(frame: &mut Frame<'_>, area: Rect, app: &App, rows: &[ThreadRow]) {
    let columns = shown(area.width, app.request.sort);
    let cell = |style: &columns::Style, text: String| {
        let side = if style.is_number { Alignment::Right } else { Alignment::Left };
        Line::from(text).alignment(side)
    };
    let title = |style: &&columns::Style| {
        if style.column != app.request.sort {
            return cell(style, style.title.to_owned());
        }
        let arrow = if app.request.descending { "▼" } else { "▲" };
        cell(style, format!("{}{arrow}", style.title)).style(Style::new().fg(Color::Yellow).bold())
    };
    let selected = app.selected.checked_sub(app.first);
    let line = |(place, thread): (usize, &ThreadRow)| {
        let row = Row::new(columns.iter().map(|style| cell(style, style.text(thread))));
        let style = match (&*thread.state, Some(place) == selected) {
            (_, true) => Style::new().black().on_cyan(),
            ("running", _) => Style::new().fg(Color::Green),
            ("runnable", _) => Style::new().fg(Color::Yellow),
            ("blocked", _) => Style::new().fg(Color::Red),
            _ => Style::new(),
        };
        row.style(style)
    };
    let width = |style: &&columns::Style| {
        if style.is_number { Constraint::Length(style.width) } else { Constraint::Min(style.width) }
    };
    let table = Table::new(rows.iter().enumerate().map(line), columns.iter().map(width))
        .header(Row::new(columns.iter().map(title)).style(HEADING));
    frame.render_widget(table, area);
}

fn draw_stack(frame: &mut Frame<'_>, area: Rect, view: &StackView) {
    let [heading, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let (title, lines) = match &view.stack {
        None => (format!("thread {}", view.id), vec![Line::from("asked for")]),
        Some(stack) => match &stack.thread {
            None => (format!("thread {}", view.id), vec![Line::from("it has ended")]),
            Some(thread) => (describe(thread), frames(stack)),
        },
    };
    frame.render_widget(Paragraph::new(title).style(HEADING), heading);
    frame.render_widget(
        Paragraph::new(lines.into_iter().skip(view.skipped).collect::<Vec<_>>()),
        rest,
    );
}

fn describe(thread: &ThreadRow) -> String {
    format!(
        "thread {} '{}' {}{} group {}, ran {} in {} turns, stack {} of {}, spawned at {}",
        thread.id,
        clean(thread.name.as_deref().unwrap_or("")),
        thread.state,
        thread.reason.as_ref().map_or_else(String::new, |r| format!(" ({})", clean(r))),
        clean(&thread.group),
        time(thread.run_time_ns),
        count(thread.turns),
        bytes(thread.stack_high_water),
        bytes(thread.stack_reserved),
        clean(&thread.spawned_at)
    )
}

fn frames(stack: &uthread::inspect::protocol::Stack) -> Vec<Line<'static>> {
    if stack.frames.is_empty() {
        return vec![Line::from("it has not begun, or could not be caught; r tries again")];
    }
    let line = |(number, frame): (usize, &uthread::inspect::protocol::StackFrame)| {
        let function = match &frame.function {
            Some(function) => clean(function),
            None => format!("{:#x}", frame.address),
        };
        let place = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!("  {}:{line}", clean(file)),
            _ => String::new(),
        };
        Line::from(vec![format!("{number:>3} ").dim(), function.into(), place.dim()])
    };
    stack.frames.iter().enumerate().map(line).collect()
}

fn draw_help(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if app.typing.is_some() {
        let text = format!("/{}_", app.request.search);
        let hint = format!("   {} found  Enter keep  Esc take back", grouped(app.matching()));
        frame.render_widget(Line::from(vec![text.bold(), hint.dim()]), area);
        return;
    }
    let keys = if app.stack.is_some() {
        "Esc back  r again  ↑↓ scroll  q quit"
    } else {
        "q quit  / search  ←→ 1-9 sort  r reverse  ↑↓ PgUp PgDn  Enter stack  Space pause"
    };
    let place = match (app.matching(), &*app.request.search) {
        (0, _) if app.snapshot.is_none() => String::new(),
        (0, _) => "none ".to_owned(),
        (all, "") => format!("{} of {} ", grouped(app.selected + 1), grouped(all)),
        (all, search) => {
            format!("{} of {} with '{search}' ", grouped(app.selected + 1), grouped(all))
        }
    };
    frame.render_widget(Line::from(vec![place.bold(), keys.dim()]), area);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use uthread::inspect::protocol::{Census, SnapshotRequest, Stack, StackFrame};

    fn snapshot(workers: usize) -> Snapshot {
        let worker = |index| WorkerRow {
            index,
            busy: 0.5,
            queued: 3,
            thread: Some(7),
            thread_name: Some("busy".into()),
        };
        let group = |(name, share): (&str, f64)| GroupRow {
            name: name.into(),
            weight: 100,
            share,
            ..GroupRow::default()
        };
        let row = |id: u64| ThreadRow {
            id,
            name: Some(format!("thread-{id}")),
            state: "waiting".into(),
            reason: Some("park".into()),
            group: "default".into(),
            ..ThreadRow::default()
        };
        Snapshot {
            pid: 42,
            program: "server".into(),
            workers: (0..workers).map(worker).collect(),
            groups: [("default", 0.1), ("http", 0.7)].map(group).into(),
            threads: Census {
                total: 100_000,
                matching: 100_000,
                waiting: 99_990,
                ..Census::default()
            },
            rows: (1..=50).map(row).collect(),
            times: vec![
                TimesRow { name: "run_delay".into(), total: 9, ..TimesRow::default() },
                TimesRow {
                    name: "op_latency".into(),
                    op: Some("recv".into()),
                    total: 9,
                    count: 3,
                    p50_ns: 1_560_000,
                    p99_ns: 9_130_000,
                    max_ns: 12_000_000,
                },
                TimesRow { name: "wakeup_latency".into(), ..TimesRow::default() },
            ],
            ..Snapshot::default()
        }
    }

    fn app(workers: usize) -> App {
        let mut app = App::new(SnapshotRequest::default(), Duration::from_secs(1));
        app.receive(snapshot(workers), 0);
        app
    }

    fn drawn(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        cells.map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect()
    }

    fn has(lines: &[String], text: &str) -> bool {
        lines.iter().any(|line| line.contains(text))
    }

    #[test]
    fn a_screen_has_workers_groups_threads_and_help() {
        let mut app = app(2);
        let lines = drawn(&mut app, 120, 30);
        assert!(lines[0].starts_with("server (pid 42)"), "{lines:#?}");
        assert!(has(&lines, "100,000 threads") && has(&lines, "99,990 waiting"));
        assert!(has(&lines, "50.0%]   3 queued busy"), "{lines:#?}");
        let at = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
        assert!(at("http") < at("default"), "the largest share first");
        assert!(has(&lines, "thread-1 ") && has(&lines, "wait park"));
        assert!(lines[29].contains("1 of 100,000 q quit"), "{lines:#?}");
        assert_eq!(app.request.limit, lines.iter().filter(|l| l.contains("thread-")).count());
    }

    #[test]
    fn times_are_shown_where_there_ever_were_any() {
        let lines = drawn(&mut app(1), 120, 30);
        assert!(has(&lines, "op recv         1.56ms  9.13ms  12.0ms"), "{lines:#?}");
        assert!(has(&lines, "run delay            -       -       -"), "none of late");
        assert!(!has(&lines, "wakeup latency"), "none ever");
        assert!(!has(&drawn(&mut app(1), 120, 15), "op recv"), "no room");
    }

    #[test]
    fn the_column_that_is_sorted_by_is_marked() {
        let mut app = app(1);
        app.press(KeyCode::Char('5').into());
        assert!(has(&drawn(&mut app, 100, 20), "TIME▼"));
        app.press(KeyCode::Char('r').into());
        assert!(has(&drawn(&mut app, 100, 20), "TIME▲"));
    }

    #[test]
    fn screens_of_any_size_can_be_drawn() {
        for workers in [1, 2, 64, 300] {
            let mut app = app(workers);
            for (width, height) in [(1, 1), (2, 3), (10, 10), (40, 5), (80, 24), (300, 100)] {
                drawn(&mut app, width, height);
                app.press(KeyCode::Enter.into());
                drawn(&mut app, width, height);
                app.press(KeyCode::Esc.into());
            }
        }
    }

    #[test]
    fn a_stack_takes_the_place_of_the_list() {
        let mut app = app(1);
        app.press(KeyCode::Enter.into());
        assert!(has(&drawn(&mut app, 100, 20), "asked for"));
        let frame = |function: &str| StackFrame {
            function: Some(function.into()),
            file: Some("main.rs".into()),
            line: Some(3),
            ..StackFrame::default()
        };
        let stack = Stack {
            thread: Some(snapshot(1).rows.swap_remove(0)),
            frames: vec![frame("inner"), frame("outer")],
        };
        app.receive_stack(1, stack);
        let lines = drawn(&mut app, 100, 20);
        assert!(has(&lines, "0 inner  main.rs:3") && has(&lines, "1 outer"), "{lines:#?}");
        app.receive_stack(1, Stack::default());
        assert!(has(&drawn(&mut app, 100, 20), "it has ended"));
    }

    #[test]
    fn a_search_is_shown_while_it_is_typed() {
        let mut app = app(1);
        for c in "/abc".chars() {
            app.press(KeyCode::Char(c).into());
        }
        assert!(drawn(&mut app, 100, 20)[19].starts_with("/abc_   100,000 found"));
    }
}
