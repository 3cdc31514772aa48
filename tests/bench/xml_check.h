// A strict look at XML: enough to say whether what the chart and page writers write is well-formed.
#ifndef RINGSOCK_TESTS_BENCH_XML_CHECK_H_
#define RINGSOCK_TESTS_BENCH_XML_CHECK_H_

#include <cctype>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ringsock::bench {

struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes;  // as they stand, not unescaped
};

// Reads elements, attributes, text and the five named and the decimal character references; a
// DOCTYPE at the start. Nothing else of XML.
class XmlCheck {
 public:
  explicit XmlCheck(std::string_view text) : rest_(text) {
    if (rest_.starts_with("<!DOCTYPE html>\n")) rest_.remove_prefix(16);
    while (error_.empty() && !rest_.empty()) rest_[0] == '<' ? Tag() : Text();
    if (error_.empty() && !open_.empty()) error_ = "not closed: " + open_.back();
    if (error_.empty() && elements_.empty()) error_ = "no element";
  }

  // "" if it is well-formed.
  const std::string& error() const { return error_; }
  const std::vector<XmlElement>& elements() const { return elements_; }
  size_t Count(std::string_view name) const {
    size_t count = 0;
    for (const XmlElement& element : elements_) count += element.name == name ? 1 : 0;
    return count;
  }

 private:
  void Fail(const std::string& what) {
    if (error_.empty()) error_ = what + " before: " + std::string(rest_.substr(0, 60));
  }

  void References(std::string_view text) {
    for (size_t at = text.find('&'); at != text.npos; at = text.find('&', at + 1)) {
      const size_t end = text.find(';', at);
      const std::string_view name = text.substr(at + 1, end == text.npos ? 0 : end - at - 1);
      const bool known = name == "amp" || name == "lt" || name == "gt" || name == "quot" ||
                         (name.size() > 1 && name[0] == '#' &&
                          name.find_first_not_of("0123456789", 1) == name.npos);
      if (!known) return Fail("bad reference");
    }
  }

  void Text() {
    const std::string_view text = rest_.substr(0, rest_.find('<'));
    const bool blank = text.find_first_not_of(" \n") == text.npos;
    if (open_.empty() && !blank) return Fail("text outside");
    if (text.find('>') != text.npos && open_.back() != "style") return Fail("stray >");
    if (open_.empty() || open_.back() != "style") References(text);
    for (const char c : text) {
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') return Fail("control");
    }
    rest_.remove_prefix(text.size());
  }

  std::string Name() {
    size_t length = 0;
    while (length < rest_.size() && (std::isalnum(static_cast<unsigned char>(rest_[length])) ||
                                     std::strchr("-:", rest_[length]) != nullptr)) {
      ++length;
    }
    const std::string name(rest_.substr(0, length));
    rest_.remove_prefix(length);
    if (name.empty()) Fail("no name");
    return name;
  }

  bool Take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }

  void Tag() {
    if (Take("</")) {
      const std::string name = Name();
      if (!Take(">") || open_.empty() || open_.back() != name) return Fail("bad end tag " + name);
      open_.pop_back();
      return;
    }
    Take("<");
    if (open_.empty() && !elements_.empty()) return Fail("second root");
    XmlElement element{.name = Name(), .attributes = {}};
    while (error_.empty() && Take(" ")) {
      const std::string name = Name();
      if (!Take("=\"")) return Fail("no value of " + name);
      const size_t end = rest_.find('"');
      if (end == rest_.npos) return Fail("open value of " + name);
      const std::string_view value = rest_.substr(0, end);
      if (value.find('<') != value.npos) return Fail("< in value of " + name);
      References(value);
      if (!element.attributes.emplace(name, value).second) return Fail("twice: " + name);
      rest_.remove_prefix(end + 1);
    }
    const bool empty = Take("/");
    if (!Take(">")) return Fail("bad tag " + element.name);
    if (!empty) open_.push_back(element.name);
    elements_.push_back(std::move(element));
  }

  std::string_view rest_;
  std::string error_;
  std::vector<std::string> open_;
  std::vector<XmlElement> elements_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_TESTS_BENCH_XML_CHECK_H_
