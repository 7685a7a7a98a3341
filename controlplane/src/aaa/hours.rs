//! When a user may log on.

use core::str::FromStr;

use jiff::civil::{DateTime, Weekday};

/// What belongs where hours are written.
pub const HOURS: &str = "write days and times of this machine's clock: \"Mon-Fri 08:00-18:00\", \"Sat 9:00-12:00\", \"daily 22:00-06:00\"";

const MINUTES_PER_DAY: u16 = 24 * 60;

/// One stretch of the day, on some days of the week.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    /// Bit n for the day n days after Monday, on which the stretch begins.
    days: u8,
    /// Minutes from midnight, below 1440.
    from: u16,
    /// Minutes from midnight, up to 1440; not above `from` when it is past midnight.
    to: u16,
}

impl Hours {
    /// Whether `now`, by the machine's clock, is inside.
    pub fn contains(&self, now: DateTime) -> bool {
        let on = |day: Weekday| self.days >> day.to_monday_zero_offset() & 1 == 1;
        let minute = now.hour().unsigned_abs() as u16 * 60 + now.minute().unsigned_abs() as u16;
        let today = now.date().weekday();
        if self.from < self.to {
            return on(today) && (self.from..self.to).contains(&minute);
        }
        (on(today) && minute >= self.from) || (on(today.previous()) && minute < self.to)
    }
}

/// Not a stretch of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no hours; {HOURS}")]
pub struct NoHours;

impl FromStr for Hours {
    type Err = NoHours;

    fn from_str(text: &str) -> Result<Self, NoHours> {
        let (days, times) = text.trim().split_once(' ').ok_or(NoHours)?;
        let (from, to) = times.trim().split_once('-').ok_or(NoHours)?;
        let hours = Self {
            days: days_of(days)?,
            from: minutes(from)?,
            to: minutes(to)?,
        };
        // An empty stretch is nobody's wish; a whole day is 00:00-24:00.
        if hours.from == hours.to || hours.from == MINUTES_PER_DAY {
            return Err(NoHours);
        }
        Ok(hours)
    }
}

fn days_of(text: &str) -> Result<u8, NoHours> {
    if text.eq_ignore_ascii_case("daily") {
        return Ok(0x7f);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    let mut days = 0;
    for after in 0..7 {
        let day = (first + after) % 7;
        days |= 1 << day;
        if day == last {
            break;
        }
    }
    Ok(days)
}

/// Days after Monday.
fn day(text: &str) -> Result<u8, NoHours> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let text = text.to_ascii_lowercase();
    let day = DAYS.iter().position(|day| *day == text).ok_or(NoHours)?;
    u8::try_from(day).map_err(|_| NoHours)
}

/// `8:05`, `08:05` and `24:00`, in minutes.
fn minutes(text: &str) -> Result<u16, NoHours> {
    let (hour, minute) = text.trim().split_once(':').ok_or(NoHours)?;
    let number = |text: &str, digits: &[usize]| {
        let fits = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| fits).ok_or(NoHours)
    };
    let (hour, minute) = (number(hour, &[1, 2])?, number(minute, &[2])?);
    let all = hour * 60 + minute;
    if minute < 60 && all <= MINUTES_PER_DAY {
        Ok(all)
    } else {
        Err(NoHours)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    /// The `day`th of a month that begins on a Monday.
    fn at(day: i8, hour: i8, minute: i8) -> DateTime {
        date(2026, 6, day).at(hour, minute, 59, 0)
    }

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    #[test]
    fn hours_begin_and_end_on_the_minute() {
        let office = hours("Mon-Fri 8:00-18:00");
        assert!(!office.contains(at(1, 7, 59)));
        assert!(office.contains(at(1, 8, 0)));
        assert!(office.contains(at(5, 17, 59)));
        assert!(!office.contains(at(5, 18, 0)));
        assert!(!office.contains(at(6, 12, 0)));
        let whole = hours("daily 00:00-24:00");
        assert!(whole.contains(at(7, 0, 0)) && whole.contains(at(7, 23, 59)));
    }

    #[test]
    fn nights_end_on_the_next_day() {
        let night = hours("Fri 22:00-06:00");
        assert!(!night.contains(at(5, 21, 59)));
        assert!(night.contains(at(5, 22, 0)));
        assert!(night.contains(at(6, 5, 59)));
        assert!(!night.contains(at(6, 6, 0)));
        assert!(!night.contains(at(6, 22, 0)));
        assert!(!night.contains(at(5, 3, 0)));
    }

    #[test]
    fn weeks_go_round() {
        let weekend = hours("sat-MON 10:00-11:00");
        let open: Vec<i8> = (1..=7)
            .filter(|day| weekend.contains(at(*day, 10, 30)))
            .collect();
        assert_eq!(open, [1, 6, 7]);
        // A night from Sunday into Monday.
        assert!(hours("Sun 22:00-02:00").contains(at(1, 1, 0)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Mon",
            "Mon 8-18",
            "Mon 08:00",
            "Mon 08:00-",
            "Xyz 08:00-09:00",
            "Mon 08:60-09:00",
            "Mon 24:01-25:00",
            "Mon 08:00-08:00",
            "Mon 24:00-06:00",
            "Mon-  08:00-09:00",
            "Mon +8:00-09:00",
            "Mon 8:0-9:00",
        ] {
            assert_eq!(text.parse::<Hours>(), Err(NoHours), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,40}") {
            let _ = text.parse::<Hours>();
        }

        #[test]
        fn a_stretch_and_the_rest_of_the_day_are_a_whole(
            (from, to) in (0_u16..1440, 0_u16..1440),
            (day, hour, minute) in (1_i8..29, 0_i8..24, 0_i8..60),
        ) {
            prop_assume!(from != to);
            let text = |from: u16, to: u16| {
                format!("daily {}:{:02}-{}:{:02}", from / 60, from % 60, to / 60, to % 60)
            };
            let now = at(day, hour, minute);
            let inside = hours(&text(from, to)).contains(now);
            prop_assert_ne!(inside, hours(&text(to, from)).contains(now));
        }
    }
}
