//! The walk of the `scan` role: every regular file below a folder, in one fixed order, from any
//! place on. Reads folders only, never a file's content.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

use super::reason::reason;

/// What the walk finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file; its path below the root.
    File(PathBuf),
    /// Something that cannot be read (a folder, mostly), and why.
    Unreadable(PathBuf, String),
}

impl Found {
    /// The path below the root: the item's place in the order.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Unreadable(path, _) => path,
        }
    }
}

/// Walks a folder: hidden files too, links not followed, names sorted by their bytes.
///
/// Paths come in the order of their components, so what comes after a given path is well defined
/// even when the folder changed in between.
#[derive(Debug)]
pub(crate) struct Walk {
    root: PathBuf,
    exclude: Vec<PathBuf>,
    after: Option<PathBuf>,
    inner: walkdir::IntoIter,
}

impl Walk {
    /// A walk of what comes after `after` (from the start if `None`). `exclude` are absolute
    /// paths that are left out with all they hold.
    pub(crate) fn new(root: &Path, exclude: &[PathBuf], after: Option<PathBuf>) -> Self {
        Self {
            root: root.to_owned(),
            exclude: exclude.to_owned(),
            after,
            inner: WalkDir::new(root).sort_by_file_name().into_iter(),
        }
    }

    fn below_root(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    fn is_past(&self, path: &Path) -> bool {
        self.after.as_deref().is_none_or(|after| path > after)
    }

    /// Every path in the folder comes before the place to go on from.
    fn folder_is_behind(&self, folder: &Path) -> bool {
        let Some(after) = self.after.as_deref() else {
            return false;
        };
        folder.cmp(after) == Ordering::Less && !after.starts_with(folder)
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            match self.inner.next()? {
                Ok(entry) => {
                    let path = self.below_root(entry.path());
                    let is_folder = entry.file_type().is_dir();
                    if self.exclude.iter().any(|e| e == entry.path())
                        || (is_folder && self.folder_is_behind(&path))
                    {
                        if is_folder {
                            self.inner.skip_current_dir();
                        }
                        continue;
                    }
                    // Links, sockets, pipes and devices are no regular files.
                    if entry.file_type().is_file() && self.is_past(&path) {
                        return Some(Found::File(path));
                    }
                }
                Err(error) => {
                    let path = self.below_root(error.path().unwrap_or(&self.root));
                    let reason = error.io_error().map_or_else(|| error.to_string(), reason);
                    // The root itself has the empty path, which is past nothing but the start.
                    if self.is_past(&path) {
                        return Some(Found::Unreadable(path, reason));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Walk};
    use proptest::prelude::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, file).expect("a file");
        }
        folder
    }

    fn paths(root: &Path, exclude: &[PathBuf], after: Option<&str>) -> Vec<String> {
        Walk::new(root, exclude, after.map(PathBuf::from))
            .map(|found| found.path().display().to_string())
            .collect()
    }

    #[test]
    fn files_come_sorted_hidden_ones_too() {
        let tree = tree(&["b", "a/z", "a/.h", ".git/x", "a.b", "a/b/c"]);
        assert_eq!(
            paths(tree.path(), &[], None),
            [".git/x", "a/.h", "a/b/c", "a/z", "a.b", "b"]
        );
    }

    #[test]
    fn an_empty_folder_has_nothing() {
        assert!(paths(tree(&[]).path(), &[], None).is_empty());
    }

    #[test]
    fn what_is_excluded_is_left_out_with_all_it_holds() {
        let tree = tree(&["a", "data/x", "data/y/z", "data2/k", "e"]);
        let exclude = [tree.path().join("data"), tree.path().join("e")];
        assert_eq!(paths(tree.path(), &exclude, None), ["a", "data2/k"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed_and_special_files_are_not_counted() {
        let tree = tree(&["a/b"]);
        std::os::unix::fs::symlink(tree.path(), tree.path().join("a/loop")).expect("a link");
        std::os::unix::fs::symlink("b", tree.path().join("a/link")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(tree.path().join("s")).expect("one");
        assert_eq!(paths(tree.path(), &[], None), ["a/b"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_unreadable_with_a_reason() {
        let tree = tree(&[]);
        let found: Vec<_> = Walk::new(&tree.path().join("no"), &[], None).collect();
        assert_eq!(
            found,
            [Found::Unreadable(PathBuf::new(), "not found".to_owned())]
        );
    }

    #[test]
    fn a_path_that_vanished_is_still_a_place_to_go_on_from() {
        let tree = tree(&["a/1", "a/3", "b"]);
        assert_eq!(paths(tree.path(), &[], Some("a/2")), ["a/3", "b"]);
        assert_eq!(paths(tree.path(), &[], Some("a")), ["a/1", "a/3", "b"]);
        assert_eq!(paths(tree.path(), &[], Some("a/3/x")), ["b"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn going_on_after_any_item_gives_exactly_the_rest(
            names in proptest::collection::btree_set("[ab.]/[a-c]/[a-c]|[ab]x|[cd]", 1..12),
            at in any::<proptest::sample::Index>(),
        ) {
            let names: Vec<&str> =
                names.iter().map(String::as_str).filter(|n| !n.starts_with("./")).collect();
            let tree = tree(&names);
            let all = paths(tree.path(), &[], None);
            if !all.is_empty() {
                let at = at.index(all.len());
                prop_assert_eq!(paths(tree.path(), &[], Some(&all[at])), &all[at + 1..]);
            }
        }
    }
}
