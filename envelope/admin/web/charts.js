"use strict";
// The three charts: each has a plot, a legend with the values under the cursor, and a table.

const COLOURS = 6;
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function make(tag, words, className) {
  const node = document.createElement(tag);
  if (words !== undefined) node.textContent = words;
  if (className) node.className = className;
  return node;
}

const clock = seconds => new Date(seconds * 1000).toLocaleTimeString([], { hourCycle: "h23" });

// A number of at least three digits with its unit: 1.23 k, 12.3 k, 123 k.
function scaled(value, unit, step = 1000) {
  const names = ["", "k", "M", "G", "T", "P"];
  let power = 0;
  while (value >= step && power < names.length - 1) { value /= step; power++; }
  const digits = power && value < 100 ? (value < 10 ? 2 : 1) : 0;
  return `${value.toFixed(digits)} ${names[power]}${unit}`.trimEnd();
}

const milliseconds = value => value === null ? "–" : `${(value * 1000).toFixed(value < 0.01 ? 2 : value < 0.1 ? 1 : 0)} ms`;
const bits = value => value === null ? "–" : scaled(value, "bit/s");
const times = value => value === null ? "–" : String(value);

const total = values => values.reduce((sum, one) => sum + one, 0);

class Chart {
  // `show` turns a value into words; `least` is the least end of the axis. Bars stand on each other: a series is drawn with those behind it added.
  constructor(id, show, kind) {
    Object.assign(this, { show, kind, bars: kind === "bars", least: { bars: 4, dots: 1e-3, area: 1000 }[kind] });
    this.plotBox = make("div", undefined, "plot");
    this.plotBox.role = "img";
    this.legend = make("p", undefined, "legend");
    this.details = make("details");
    const table = make("div", undefined, "scroll");
    Object.assign(table, { tabIndex: 0, role: "region", ariaLabel: `${id} as a table` });
    this.table = table.appendChild(make("table"));
    this.details.append(make("summary", "As a table"), table);
    this.title = document.querySelector(`#${id}-title`).textContent;
    document.getElementById(id).append(this.legend, this.plotBox, this.details);
    this.shape = "";
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.plotBox);
  }

  size() { return { width: this.plotBox.clientWidth, height: 170 }; }

  // `series` are {name, values, dash}; `moments` are seconds since the epoch, the last one now.
  update(moments, series) {
    const shape = JSON.stringify(series.map(each => each.name)) + colour("ground");
    if (shape === this.shape && moments.at(-1) === this.moments.at(-1)) return; // No new sample.
    Object.assign(this, { moments, series });
    const data = [moments, ...(this.bars ? stacked(series) : series.map(each => each.values))];
    if (shape !== this.shape) {
      this.plot?.destroy();
      this.plot = new uPlot(this.options(), data, this.plotBox);
      this.shape = shape;
    } else this.plot.setData(data);
    this.tell(this.plot.cursor.idx);
    this.plotBox.ariaLabel = `${this.title}, ten minutes; the latest: ${this.legend.textContent || "none"}`;
    this.fill();
  }

  options() {
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    return {
      ...this.size(), legend: { show: false }, padding: [8, 8, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { show: !this.bars }, y: false },
      hooks: { setCursor: [plot => this.tell(plot.cursor.idx)] },
      scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, this.least)] } },
      axes: [
        { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map(tick => clock(tick).replace(/(:\d\d):\d\d/, "$1")) },
        { ...axis, size: this.bars ? 36 : 74, space: 34, values: (_, ticks) => ticks.map(tick => Number.isInteger(tick) || !this.bars ? this.show(tick) : "") },
      ],
      series: [{}, ...this.series.map((each, place) => this.line(each, colour(`c${place % COLOURS}`)))],
    };
  }

  line({ dash }, stroke) {
    if (this.bars) return { fill: stroke, stroke, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.9, 10] }) };
    const fill = this.kind === "area" && !dash ? `${stroke}26` : undefined;
    return { stroke, fill, width: 1.5, dash: dash && [6, 5], points: { show: this.kind === "dots", size: 3, fill: stroke, width: 0 } };
  }

  tell(place) {
    this.legend.replaceChildren(...this.series.map((each, number) => {
      const item = make("span"), mark = make("i", undefined, each.dash ? "dash" : "");
      mark.style[each.dash ? "borderColor" : "background"] = `var(--c${number % COLOURS})`;
      const value = place != null ? each.values[place] : this.bars ? total(each.values) : each.values.findLast(one => one !== null);
      item.append(mark, each.name, make("b", this.show(value ?? null)));
      return item;
    }));
  }

  fill() {
    const head = make("tr");
    head.append(...["Time", ...this.series.map(each => each.name)].map(name => Object.assign(make("th", name), { scope: "col" })));
    const rows = this.moments.map((moment, at) => {
      const row = make("tr");
      row.append(Object.assign(make("th", clock(moment)), { scope: "row" }), ...this.series.map(each => make("td", this.show(each.values[at] ?? null))));
      return row;
    }).reverse();
    const parts = [make("thead"), make("tbody")];
    parts[0].append(head);
    parts[1].append(...rows);
    this.table.replaceChildren(...parts);
  }
}

// The first series is drawn first, and stands on all others.
function stacked(series) {
  return series.map((_, place) => series[0].values.map((_, at) => total(series.slice(place).map(each => each.values[at]))));
}

const charts = {
  refusals: new Chart("refusals", times, "bars"),
  grants: new Chart("grants", milliseconds, "dots"),
  rate: new Chart("rate", bits, "area"),
};

function drawCharts(status) {
  const { every, until, refusals, grant_seconds_p50: middle, grant_seconds_p95: slow, tx_bits_per_second: rate } = status.history;
  const kept = 600 / every, missing = Math.max(0, kept - middle.length);
  const moments = Array.from({ length: kept }, (_, place) => (until || status.now) - (kept - 1 - place) * every);
  const pad = (values, filler) => [...Array(missing).fill(filler), ...values];
  const byNumber = Object.entries(refusals).map(([name, values]) => ({ name, values: pad(values, 0), sum: total(values) }))
    .sort((a, b) => b.sum - a.sum || a.name.localeCompare(b.name));
  const rest = byNumber.splice(COLOURS - 1);
  if (rest.length) byNumber.push({ name: "other", values: rest[0].values.map((_, at) => total(rest.map(each => each.values[at]))) });
  charts.refusals.update(moments, byNumber.length ? byNumber : [{ name: "none", values: Array(kept).fill(0) }]);
  charts.grants.update(moments, [{ name: "p50", values: pad(middle, null) }, { name: "p95", values: pad(slow, null) }]);
  const limit = status.options["tx-max-rate"], device = status.options["tx-device"];
  const lines = [{ name: device ? `${device} sends` : "no --tx-device", values: pad(rate, null) }];
  if (limit) lines.push({ name: "--tx-max-rate", values: Array(kept).fill(limit), dash: true });
  charts.rate.update(moments, lines);
}
