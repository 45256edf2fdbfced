//! A page as a tree of elements: every text and attribute is escaped on its way in, so passages cannot become markup.

use std::fmt::{Display, Write};

/// Finished markup. Only elements and constants of this program become one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// The markup as it stands in the file.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Text, escaped.
    pub(super) fn text(text: impl Display) -> Self {
        Self(escape(&text.to_string()))
    }

    /// A style sheet that is part of this program.
    pub(super) fn style(sheet: &'static str) -> Self {
        Self(format!("<style>\n{sheet}</style>"))
    }
}

/// An element under construction.
#[derive(Debug, Clone)]
pub(super) struct Element {
    name: &'static str,
    attributes: String,
    content: String,
}

/// An element without attributes and content.
pub(super) fn element(name: &'static str) -> Element {
    Element { name, attributes: String::new(), content: String::new() }
}

impl Element {
    /// Adds an attribute; the value is escaped.
    pub(super) fn attribute(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes += &format!(" {name}=\"{}\"", escape(&value.to_string()));
        self
    }

    /// Sets the class.
    pub(super) fn class(self, class: impl Display) -> Self {
        self.attribute("class", class)
    }

    /// Marks the content as another's words in a language: its fonts, and its direction by its first strong letter,
    /// kept apart from the direction of what stands around it.
    pub(super) fn foreign(self, language: impl Display) -> Self {
        self.attribute("lang", language).attribute("dir", "auto")
    }

    /// Appends text, escaped.
    pub(super) fn text(self, text: impl Display) -> Self {
        self.child(Html::text(text))
    }

    /// Appends markup.
    pub(super) fn child(mut self, child: impl Into<Html>) -> Self {
        self.content += child.into().as_str();
        self
    }

    /// Appends several pieces of markup.
    pub(super) fn children<T: Into<Html>>(self, children: impl IntoIterator<Item = T>) -> Self {
        children.into_iter().fold(self, Self::child)
    }
}

impl From<Element> for Html {
    fn from(element: Element) -> Self {
        let Element { name, attributes, content } = element;
        let mut markup = format!("<{name}{attributes}>");
        if !matches!(name, "meta" | "br") {
            write!(markup, "{content}</{name}>").expect("a string takes everything");
        }
        Self(markup)
    }
}

/// Text as it must stand in an element or a quoted attribute. Control characters, which HTML forbids, become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(character),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_and_attributes_stay_text() {
        let hostile = "</p><script>alert('1')</script>&amp;\u{0}\u{1b}";
        let html: Html = element("p").attribute("title", "\" onload=\"x").text(hostile).into();
        let expected = "<p title=\"&quot; onload=&quot;x\">&lt;/p&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\
                        &amp;amp;\u{fffd}\u{fffd}</p>";
        assert_eq!(html.as_str(), expected);
    }

    #[test]
    fn elements_nest_and_some_have_no_end() {
        let cells = ["a", "b"].map(|text| element("td").text(text));
        let html: Html = element("tr").child(element("br")).children(cells).into();
        assert_eq!(html.as_str(), "<tr><br><td>a</td><td>b</td></tr>");
    }

    #[test]
    fn another_language_has_its_direction() {
        let html: Html = element("q").foreign("ar").text("سؤال").into();
        assert_eq!(html.as_str(), "<q lang=\"ar\" dir=\"auto\">سؤال</q>");
    }

    proptest! {
        #[test]
        fn nothing_escapes(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(['<', '>', '"', '\'']));
        }
    }
}
