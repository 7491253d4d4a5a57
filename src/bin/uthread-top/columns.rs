//! The columns of the list of threads.

use uthread::inspect::protocol::{Column, ThreadRow};

use crate::format::{bytes, clean, count, percent, time};

/// How a column is shown.
pub(crate) struct Style {
    pub(crate) column: Column,
    pub(crate) title: &'static str,
    /// Characters; at least, of those that take what is left.
    pub(crate) width: u16,
    pub(crate) is_number: bool,
    text: fn(&ThreadRow) -> String,
}

macro_rules! style {
    ($column:ident, $title:literal, $width:literal, $is_number:literal, $text:expr) => {
        Style {
            column: Column::$column,
            title: $title,
            width: $width,
            is_number: $is_number,
            text: $text,
        }
    };
}

/// In their order on the screen. Where there is no room, the last ones are left out.
pub(crate) const COLUMNS: [Style; 14] = [
    style!(Id, "ID", 8, true, |t| t.id.to_string()),
    style!(Name, "NAME", 16, false, |t| clean(t.name.as_deref().unwrap_or("-"))),
    style!(State, "STATE", 16, false, state),
    style!(Share, "CPU%", 5, true, |t| percent(t.share)),
    style!(RunTime, "TIME", 7, true, |t| time(t.run_time_ns)),
    style!(RunDelay, "DELAY", 7, true, |t| time(t.run_delay_ns)),
    style!(Group, "GROUP", 9, false, |t| clean(&t.group)),
    style!(Worker, "W", 3, true, |t| t.worker.map_or("-".to_owned(), |w| w.to_string())),
    style!(Turns, "TURNS", 6, true, |t| count(t.turns)),
    style!(ForcedSwitches, "FORCED", 6, true, |t| count(t.forced_switches)),
    style!(Wakeups, "WAKE", 6, true, |t| count(t.wakeups)),
    style!(Migrations, "MIGR", 6, true, |t| count(t.migrations)),
    style!(Age, "AGE", 7, true, |t| time(t.age_ns)),
    style!(SpawnedAt, "STACK SPAWNED AT", 24, false, |t| {
        format!("{:>5} {}", bytes(t.stack_resident), clean(&t.spawned_at))
    }),
];

fn state(thread: &ThreadRow) -> String {
    match &thread.reason {
        Some(reason) => format!("wait {}", clean(reason)),
        None => clean(&thread.state),
    }
}

impl Style {
    pub(crate) fn text(&self, thread: &ThreadRow) -> String {
        (self.text)(thread)
    }
}

/// The columns for which there is room, the one that is sorted by among them.
pub(crate) fn shown(width: u16, sort: Column) -> Vec<&'static Style> {
    let must = COLUMNS.iter().find(|style| style.column == sort);
    let mut left = width.saturating_sub(must.map_or(0, |style| style.width + 1));
    let mut has_room = true;
    let fits = |style: &&Style| {
        if style.column == sort {
            return true;
        }
        has_room = has_room && style.width < left;
        if has_room {
            left -= style.width + 1;
        }
        has_room
    };
    COLUMNS.iter().filter(fits).collect()
}

/// The column beside this one.
pub(crate) fn beside(column: Column, right: bool) -> Column {
    let at = COLUMNS.iter().position(|style| style.column == column).unwrap_or(0);
    let step = if right { 1 } else { COLUMNS.len() - 1 };
    COLUMNS[(at + step) % COLUMNS.len()].column
}

/// Whether one wants to see the largest first.
pub(crate) fn is_descending_at_first(column: Column) -> bool {
    use Column::{Group, Id, Name, SpawnedAt, State, Worker};
    !matches!(column, Id | Name | State | Group | Worker | SpawnedAt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_screen_shows_what_is_sorted_by() {
        let titles = |width, sort| shown(width, sort).iter().map(|s| s.title).collect::<Vec<_>>();
        assert_eq!(titles(80, Column::Id).last(), Some(&"W"));
        assert_eq!(titles(80, Column::Migrations).last(), Some(&"MIGR"));
        assert_eq!(titles(5, Column::Age), ["AGE"]);
        assert_eq!(titles(300, Column::Age).len(), COLUMNS.len());
        for width in 0..200 {
            for style in &COLUMNS {
                let shown = shown(width, style.column);
                let taken: u16 = shown.iter().map(|s| s.width + 1).sum();
                assert!(taken <= width.max(style.width + 1) && !shown.is_empty());
            }
        }
    }

    #[test]
    fn one_gets_to_each_column_from_each() {
        let mut column = Column::Share;
        for _ in 0..COLUMNS.len() {
            assert_eq!(beside(beside(column, true), false), column);
            column = beside(column, true);
        }
        assert_eq!(column, Column::Share);
    }

    #[test]
    fn a_thread_without_a_name_or_a_worker_has_dashes() {
        let thread = ThreadRow { reason: Some("park".into()), ..ThreadRow::default() };
        let text = |column| COLUMNS.iter().find(|s| s.column == column).unwrap().text(&thread);
        assert_eq!((text(Column::Name), text(Column::Worker)), ("-".into(), "-".into()));
        assert_eq!(text(Column::State), "wait park");
    }
}
