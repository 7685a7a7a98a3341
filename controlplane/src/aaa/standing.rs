//! Whether an account may be used now.

use jiff::civil::{Date, DateTime};

use super::Hours;
use crate::cause::Cause;

/// What restricts an account. By default nothing does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// It is locked.
    pub disabled: bool,
    /// It is good for other things than dialling in.
    pub no_dial_in: bool,
    /// When its user may log on; empty: always. Calls that are up are not ended by it.
    pub hours: Vec<Hours>,
    /// How long its password is good.
    pub password: Expiry,
}

/// How long a password is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Expiry {
    /// For ever.
    #[default]
    Never,
    /// Until this day begins, by the machine's clock.
    On(Date),
}

impl Standing {
    /// Whether the account may be used at `now`, by the machine's clock. What the user cannot mend comes first: who is
    /// locked out need not change a password.
    ///
    /// # Errors
    /// [`Cause::AccountDisabled`], [`Cause::NotPermitted`], [`Cause::OutsideHours`] or [`Cause::PasswordExpired`].
    pub fn judge(&self, now: DateTime) -> Result<(), Cause> {
        self.judge_but_for_password(now)?;
        match self.password {
            Expiry::On(day) if day <= now.date() => Err(Cause::PasswordExpired),
            Expiry::On(_) | Expiry::Never => Ok(()),
        }
    }

    /// The same for a user who is about to get a new password.
    ///
    /// # Errors
    /// The same but for [`Cause::PasswordExpired`].
    pub fn judge_but_for_password(&self, now: DateTime) -> Result<(), Cause> {
        if self.disabled {
            return Err(Cause::AccountDisabled);
        }
        if self.no_dial_in {
            return Err(Cause::NotPermitted);
        }
        if !self.hours.is_empty() && !self.hours.iter().any(|hours| hours.contains(now)) {
            return Err(Cause::OutsideHours);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn every_state_has_its_cause() {
        // A Monday.
        let now = date(2026, 6, 1).at(12, 0, 0, 0);
        let standing = Standing::default();
        assert_eq!(standing.judge(now), Ok(()));
        let standing = Standing {
            password: Expiry::On(date(2026, 6, 2)),
            ..standing
        };
        assert_eq!(standing.judge(now), Ok(()));
        let standing = Standing {
            password: Expiry::On(date(2026, 6, 1)),
            ..standing
        };
        assert_eq!(standing.judge(now), Err(Cause::PasswordExpired));
        assert_eq!(standing.judge_but_for_password(now), Ok(()));
        let hours = |text: &str| text.parse().unwrap();
        let standing = Standing {
            hours: vec![hours("Mon 08:00-12:00"), hours("Tue 08:00-18:00")],
            ..standing
        };
        assert_eq!(standing.judge(now), Err(Cause::OutsideHours));
        assert_eq!(
            standing.judge_but_for_password(now),
            Err(Cause::OutsideHours)
        );
        let standing = Standing {
            no_dial_in: true,
            ..standing
        };
        assert_eq!(standing.judge(now), Err(Cause::NotPermitted));
        let standing = Standing {
            disabled: true,
            ..standing
        };
        assert_eq!(standing.judge(now), Err(Cause::AccountDisabled));
        let error = |cause: Cause| cause.client_error();
        assert_eq!(error(Cause::OutsideHours), Some(646));
        assert_eq!(error(Cause::AccountDisabled), Some(647));
        assert_eq!(error(Cause::PasswordExpired), Some(648));
        assert_eq!(error(Cause::NotPermitted), Some(649));
    }
}
