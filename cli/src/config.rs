//! What the environment says, read here and nowhere else. (Options that have a variable
//! of their own, such as `SCONCE_CONTROL_PLANE`, are declared with the option in `args`.)

use std::{ffi::OsString, path::PathBuf};

/// The part of the environment that no option stands for.
pub(crate) struct Surroundings {
    /// Where `sconce up` keeps its things when nothing else is said.
    pub(crate) home: Option<PathBuf>,
    /// Where to look for binaries.
    pub(crate) path: Option<OsString>,
}

impl Surroundings {
    /// Reads what `lookup` knows.
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| lookup(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data =
            absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        Self { home: data.map(|data| data.join("sconce")), path: lookup("PATH") }
    }

    /// Reads this process's environment.
    pub(crate) fn of_process() -> Self {
        Self::read(|name| std::env::var_os(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(variables: &[(&str, &str)]) -> Option<PathBuf> {
        Surroundings::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
        .home
    }

    #[test]
    fn the_home_is_where_the_xdg_rules_put_data() {
        assert_eq!(home(&[("HOME", "/h")]), Some("/h/.local/share/sconce".into()));
        assert_eq!(home(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), Some("/d/sconce".into()));
        // The XDG rules say that a relative path counts as none.
        assert_eq!(home(&[("HOME", "/h"), ("XDG_DATA_HOME", "d")]), Some("/h/.local/share/sconce".into()));
        assert_eq!(home(&[]), None);
    }
}
