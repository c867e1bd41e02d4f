//! Where the checker is in the scenario: a path that costs nothing until something is wrong.

/// A step from the root of the scenario, chained to the steps before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    before: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The scenario itself.
    pub(super) const ROOT: At<'static> = At {
        before: None,
        step: Step::Root,
    };

    /// The member of this name.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        At {
            before: Some(self),
            step: Step::Key(key),
        }
    }

    /// The element of this number.
    pub(super) fn index(&self, index: usize) -> At<'_> {
        At {
            before: Some(self),
            step: Step::Index(index),
        }
    }

    /// The steps from the root.
    pub(super) fn segments(&self) -> Vec<String> {
        let mut segments = Vec::new();
        let mut here = Some(self);
        while let Some(at) = here {
            match at.step {
                Step::Root => {}
                Step::Key(key) => segments.push(key.to_owned()),
                Step::Index(index) => segments.push(index.to_string()),
            }
            here = at.before;
        }
        segments.reverse();
        segments
    }
}
