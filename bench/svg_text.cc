// Charts as SVG: text, numbers and colours.
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/svg_chart.h"

namespace ringsock::bench {
namespace {

// Bytes of the UTF-8 sequence at the start of `text`; 0 if it is none that XML takes.
size_t Utf8Length(absl::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return lead >= 0x20 || lead == '\t' || lead == '\n' ? 1 : 0;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, what lies above U+10FFFF, and U+FFFE and U+FFFF.
  const uint8_t second = at(1);
  if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second >= 0xa0)) return 0;
  if ((lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second >= 0x90)) return 0;
  if (lead == 0xef && second == 0xbf && at(2) >= 0xbe) return 0;
  return length;
}

std::string WithThousands(double value) {
  std::string digits = absl::StrFormat("%.0f", value);
  for (size_t i = digits.size(); i > 3 && digits[i - 4] != '-';) {
    i -= 3;
    digits.insert(i, 1, ',');
  }
  return digits;
}

}  // namespace

std::string EscapeXml(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) {
      out += '?';
      text.remove_prefix(1);
      continue;
    }
    switch (text[0]) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.append(text.data(), length);
    }
    text.remove_prefix(length);
  }
  return out;
}

std::string FigureText(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::abs(value);
  if (size >= 99.95) return WithThousands(value);
  if (size >= 9.995) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.2f", value);
}

std::string TickText(double value) {
  if (!std::isfinite(value)) return "-";
  struct Unit {
    double size;
    const char* name;
  };
  for (const Unit& unit : std::array<Unit, 2>{{{1e6, "M"}, {1e3, "k"}}}) {
    const double scaled = value / unit.size;
    if (std::abs(scaled) >= 1 && std::abs(scaled * 10 - std::round(scaled * 10)) < 1e-6) {
      return absl::StrFormat("%g%s", scaled, unit.name);
    }
  }
  return absl::StrFormat("%g", value);
}

// Written out as rules rather than variables, since some viewers of SVG files know no variables.
std::string SvgStyleSheet() {
  struct Scheme {
    const char* back;
    const char* text;
    const char* soft;
    const char* grid;
    std::array<const char*, 4> tones;
  };
  const auto rules = [](const Scheme& s) {
    std::string out =
        absl::StrCat(".chart .back{fill:", s.back, "}.chart text{fill:", s.text,
                     "}.chart .soft{fill:", s.soft, "}.chart .grid{stroke:", s.grid,
                     "}.chart .axis{stroke:", s.soft, "}.chart .whisker{stroke:", s.text, "}");
    for (size_t i = 0; i < s.tones.size(); ++i) {
      absl::StrAppend(&out, ".chart .s", i, "{stroke:", s.tones[i], "}.chart .f", i,
                      "{fill:", s.tones[i], "}");
    }
    return out;
  };
  return absl::StrCat(
      ".chart text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,"
      "sans-serif;font-size:12px;font-variant-numeric:tabular-nums}.chart .title{font-size:16px;"
      "font-weight:600}.chart .strong{font-weight:600}.chart .small{font-size:11px}.chart .grid{"
      "stroke-width:1}.chart .axis{stroke-width:1}.chart .whisker{stroke-width:1.5}.chart .line{"
      "fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}.chart .s0{"
      "stroke-dasharray:6 4}.chart .band{stroke:none;opacity:.16}.chart .dot{stroke:none}",
      rules({"#ffffff",
             "#1f2733",
             "#5b6676",
             "#e4e8ee",
             {"#7a8699", "#2563eb", "#0b8f7f", "#c2660c"}}),
      "@media (prefers-color-scheme:dark){",
      rules({"#12171f",
             "#e6eaf0",
             "#9aa6b6",
             "#2a323e",
             {"#94a1b5", "#6aa5ff", "#3fd0bd", "#f5ab54"}}),
      "}");
}

}  // namespace ringsock::bench
