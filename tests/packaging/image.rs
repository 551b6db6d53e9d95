//! The image that the Dockerfile makes, as far as that can be known without an engine: its last stage, on a machine that is
//! Debian, too, with the binary under test.

use std::path::PathBuf;

use serde_json::Value;

use crate::binary::BINARY;
use crate::built::text;
use crate::machine::Machine;

/// An instruction of the last stage, and what it is about.
type Instruction = (String, String);

pub(crate) struct Image(Vec<Instruction>);

impl Image {
    pub(crate) fn read() -> Self {
        let whole = text("Dockerfile").replace("\\\n", " ");
        let lines = whole.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let split = |line: &str| {
            let (name, rest) = line.split_once(' ').unwrap();
            (name.to_owned(), rest.trim().to_owned())
        };
        let all: Vec<Instruction> = lines.map(split).collect();
        let last = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
        Self(all[last..].to_vec())
    }

    /// What all instructions of a name are about.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, rest)| &**rest).collect()
    }

    /// What the one instruction of a name is about.
    pub(crate) fn one(&self, name: &str) -> &str {
        let found = self.all(name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0]
    }

    fn words(&self, name: &str) -> Vec<String> {
        serde_json::from_str(self.one(name)).unwrap()
    }

    /// What the health check runs.
    pub(crate) fn health_check(&self) -> Vec<String> {
        serde_json::from_str(self.one("HEALTHCHECK").split(" CMD ").nth(1).unwrap()).unwrap()
    }

    /// Starts it as an engine does: its user without any right, nothing to write on, and process 1 is the program. `args` take
    /// the place of its `CMD`; `variables` and `files` come in addition.
    pub(crate) fn start(
        &self,
        args: Option<Vec<String>>,
        variables: &[(String, String)],
        files: &[(PathBuf, String)],
    ) -> Machine {
        let mut files = files.to_vec();
        for copy in self.all("COPY") {
            let [from, source, to] = copy.split(' ').collect::<Vec<_>>().try_into().unwrap();
            assert_eq!(from, "--from=build", "only what was built");
            let is_ours = source == "/usr/local/bin/leasehold";
            files.push((PathBuf::from(if is_ours { BINARY } else { source }), to.to_owned()));
        }
        let (user, group) = self.one("USER").split_once(':').unwrap();
        let confine = format!(
            "mount -o remount,bind,ro / && exec setpriv --reuid {user} --regid {group} --clear-groups --bounding-set=-all \
             --no-new-privs -- \"$@\""
        );
        let mut words: Vec<String> = ["sh", "-c", &confine, "sh", "env", "-i"].map(str::to_owned).to_vec();
        words.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        words.extend(self.all("ENV").into_iter().map(str::to_owned));
        words.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        words.extend(self.words("ENTRYPOINT"));
        words.extend(args.unwrap_or_else(|| self.words("CMD")));
        Machine::start(&files, &words)
    }
}

/// The texts of a list of JSON.
pub(crate) fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
