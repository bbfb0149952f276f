"use strict";
// What is drawn here was computed before, and the same is in the page as figures: without this script nothing is lost.
(async () => {
  const SVG = "http://www.w3.org/2000/svg"
  const SHAPES = {
    o: "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z", s: "M-3 -3h6v6h-6z", D: "M0 -4.2L4.2 0L0 4.2L-4.2 0z",
    "^": "M0 -4L4 3.2H-4z", v: "M0 4L4 -3.2H-4z", P: "M-1.3 -4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
    X: "M-4 -2.2L-2.2 -4L0 -1.8L2.2 -4L4 -2.2L1.8 0L4 2.2L2.2 4L0 1.8L-2.2 4L-4 2.2L-1.8 0z",
    "*": "M0 -4.8L1.2 -1.5L4.6 -1.5L1.9 .6L2.8 3.9L0 2L-2.8 3.9L-1.9 .6L-4.6 -1.5L-1.2 -1.5z",
  }
  const CROSS = "M-3.5 -3.5L3.5 3.5M-3.5 3.5L3.5 -3.5"
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#010203"]
  const DASHES = [[], [7, 4], [2, 3], [8, 3, 2, 3], [9, 3, 2, 3, 2, 3]]
  const MOST_TOLD = 10  // arms in a tip

  const unpack = async id => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), c => c.charCodeAt(0))
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json()
  }
  const make = (name, given = {}, ...inside) => {
    const element = document.createElement(name)
    for (const [key, value] of Object.entries(given)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value)
      else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value)
    }
    element.append(...inside.filter(each => each !== null))
    return element
  }
  const draw = (name, given = {}, ...inside) => {
    const element = document.createElementNS(SVG, name)
    for (const [key, value] of Object.entries(given)) element.setAttribute(key, value)
    element.append(...inside)
    return element
  }
  const theme = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
  const ink = colour => colour === "#010203" ? theme("--ink") : colour
  const svgInk = colour => colour === "#010203" ? "var(--ink)" : colour
  const faded = (colour, share) => ink(colour) + Math.round(255 * share).toString(16).padStart(2, "0")
  const text = (value, digits = 4) => value === null || value === undefined ? "–"
    : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)
      ? (+value.toPrecision(3)).toExponential().replace("e+", "e") : String(+value.toPrecision(digits))
  const look = n => ({colour: COLOURS[n % 8], dash: DASHES[n % 5], marker: Object.keys(SHAPES)[n % 8]})

  // Which arms are off, by what tells them apart: charts of the same arms change together.
  const off = new Map(), heard = new Set()
  const isOff = (spec, arm) => off.get(spec.key)?.has(spec.arms[arm].name) ?? false
  const change = (key, names, gone) => {
    const some = off.get(key) ?? off.set(key, new Set()).get(key)
    names.forEach(name => gone ? some.add(name) : some.delete(name))
    heard.forEach(each => each.key === key && each.hear())
  }

  const swatch = ({colour, dash, marker}) => draw("svg", {width: 30, height: 12, viewBox: "-15 -6 30 12",
    "aria-hidden": "true"},
    draw("path", {d: "M-15 0H15", "stroke-width": 1.8, fill: "none", style: `stroke:${svgInk(colour)}`,
      "stroke-dasharray": dash.join(" ")}),
    draw("path", {d: SHAPES[marker], style: `fill:${svgInk(colour)}`}))

  const chips = spec => {
    const bar = make("div", {class: "chips", role: "group", "aria-label": "arms that are shown"})
    if (spec.arms.length < 2) return bar
    const names = spec.arms.map(arm => arm.name)
    const each = spec.arms.map(arm => make("button", {class: "chip", type: "button", title: "show or hide",
      onclick: event => change(spec.key, [arm.name], event.currentTarget.getAttribute("aria-pressed") === "true")},
      swatch(arm), arm.name))
    bar.append(...each)
    if (names.length > 2) bar.append(
      make("button", {type: "button", onclick: () => change(spec.key, names, false)}, "all"),
      make("button", {type: "button", onclick: () => change(spec.key, names, true)}, "none"))
    const hear = () => each.forEach((chip, n) => chip.setAttribute("aria-pressed", String(!isOff(spec, n))))
    heard.add({key: spec.key, hear})
    hear()
    return bar
  }

  const tipIn = host => {
    const tip = make("div", {class: "tip", role: "status", hidden: true})
    host.append(tip)
    return {
      hide: () => { tip.hidden = true },
      show: (x, y, ...lines) => {
        tip.replaceChildren(...lines)
        tip.hidden = false
        const wide = host.clientWidth, {offsetWidth: w} = tip
        tip.style.left = `${Math.max(0, x + 14 + w > wide ? (x - w - 14 < 0 ? wide - w : x - w - 14) : x + 14)}px`
        tip.style.top = `${y}px`
      },
    }
  }

  const watched = new ResizeObserver(entries => entries.forEach(({target}) => {
    if (target.clientWidth > 0 && target.clientWidth !== target.fitted) {
      target.fitted = target.clientWidth
      target.fit()
    }
  }))
  const fitted = (host, fit) => {
    host.fit = fit
    watched.observe(host)
  }

  // ---- curves, by uPlot ----

  const padded = (low, high, log) => {
    if (!(low <= high)) return log ? [.1, 1] : [0, 1]
    if (log) return [low / 1.15, high * 1.15]
    const room = .06 * (high - low) || .05 * Math.abs(high) || .05
    return [low - room, high + room]
  }

  // A panel of lines; gives what hears that arms were switched.
  const curve = (host, spec, lines, shown, high, label) => {
    const tip = tipIn(host), guessed = Number.isFinite(spec.guess)
    const xs = [...new Set(lines.flatMap(line => line.x))].sort((a, b) => a - b)
    const place = new Map(xs.map((x, n) => [x, n]))
    const column = (line, name) => {
      const values = Array(xs.length).fill(null)
      line.x.forEach((x, n) => {
        const value = line[name]?.[n] ?? null
        values[place.get(x)] = spec.log && !(value > 0) ? null : value
      })
      return values
    }
    const behind = line => !shown.includes(line.arm)
    const ordered = [...lines.filter(behind), ...lines.filter(line => !behind(line))]
    const data = [xs], series = [{}], bands = [], own = []
    for (const line of ordered) {
      const arm = spec.arms[line.arm], grey = behind(line), at = data.length
      data.push(column(line, "y"))
      own.push(at)
      series.push({
        stroke: () => grey ? "#8C8C8C77" : ink(arm.colour), width: grey ? 1 : 1.8, dash: grey ? [] : arm.dash,
        points: {show: false}, spanGaps: true, show: grey || !isOff(spec, line.arm),
      })
      if (line.low && !grey) {
        data.push(column(line, "high"), column(line, "low"))
        const edge = {stroke: "transparent", width: 0, points: {show: false}, show: !isOff(spec, line.arm)}
        series.push({...edge}, {...edge})
        bands.push({series: [at + 1, at + 2], fill: () => faded(arm.colour, .14)})
      }
    }
    const visible = n => ordered[n] && !behind(ordered[n]) && !isOff(spec, ordered[n].arm)
    const limits = u => {  // of all panels alike, as in the figures
      let [low, high] = [Infinity, -Infinity]
      const [first, last] = u.series[0].idxs
      for (const line of spec.lines?.flat() ?? ordered) {
        if (isOff(spec, line.arm)) continue
        line.x.forEach((x, n) => {
          const value = line.y[n]
          if (value === null || x < xs[first] || x > xs[last] || (spec.log && !(value > 0))) return
          low = Math.min(low, value)
          high = Math.max(high, value)
        })
      }
      const near = guessed && (spec.log ? spec.guess > low / 2 && spec.guess < high * 2
          : spec.guess > low - .3 * (high - low) && spec.guess < high + .3 * (high - low))
      return near ? padded(Math.min(low, spec.guess), Math.max(high, spec.guess), spec.log) : padded(low, high, spec.log)
    }
    const shape = (u, path, x, y, colour, open) => {
      u.ctx.save()
      u.ctx.translate(x, y)
      u.ctx.scale(devicePixelRatio, devicePixelRatio)
      if (open) { u.ctx.strokeStyle = colour; u.ctx.lineWidth = 2; u.ctx.stroke(new Path2D(path)) }
      else { u.ctx.fillStyle = colour; u.ctx.fill(new Path2D(path)) }
      u.ctx.restore()
    }
    const marks = u => {
      const {ctx, bbox} = u
      ctx.save()
      ctx.beginPath()
      ctx.rect(bbox.left - 6, bbox.top - 6, bbox.width + 12, bbox.height + 12)
      ctx.clip()
      if (guessed) {
        const y = u.valToPos(spec.guess, "y", true)
        if (y >= bbox.top && y <= bbox.top + bbox.height) {
          ctx.strokeStyle = theme("--ink")
          ctx.lineWidth = devicePixelRatio
          ctx.setLineDash([devicePixelRatio, 3 * devicePixelRatio])
          ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke()
          ctx.setLineDash([])
          ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`
          ctx.fillStyle = theme("--soft")
          ctx.textAlign = "right"
          ctx.fillText("chance", bbox.left + bbox.width, y - 3 * devicePixelRatio)
        }
      }
      ordered.forEach((line, n) => {
        if (!visible(n)) return
        const arm = spec.arms[line.arm], values = data[own[n]]
        const there = xs.map((x, at) => at).filter(at => values[at] !== null)
        const step = spec.every ? 1 : Math.max(1, Math.floor(there.length / 4))
        const first = spec.every ? 0 : Math.floor(line.arm % 8 * step / 8)
        for (let each = first; each < there.length; each += step) {
          const at = there[each]
          shape(u, SHAPES[arm.marker], u.valToPos(xs[at], "x", true), u.valToPos(values[at], "y", true), ink(arm.colour))
        }
        for (const end of line.ends ?? []) {
          const at = place.get(end)
          if (at !== undefined && values[at] !== null)
            shape(u, CROSS, u.valToPos(end, "x", true), u.valToPos(values[at], "y", true), ink(arm.colour), true)
        }
      })
      ctx.restore()
    }
    const tell = u => {
      const at = u.cursor.idx
      if (at === null || at === undefined || !u.here) return tip.hide()
      const told = ordered.map((line, n) => ({line, n, value: data[own[n]][at]}))
        .filter(({n, value}) => visible(n) && value !== null)
      const from = ({value}) => Math.abs(u.valToPos(value, "y") - u.cursor.top)
      const nearest = told.length ? told.reduce((a, b) => from(b) < from(a) ? b : a) : null
      const some = told.sort((a, b) => from(a) - from(b)).slice(0, MOST_TOLD).sort((a, b) => b.value - a.value)
      const rows = some.map(each => {
        const {line} = each, n = line.x.indexOf(xs[at]), arm = spec.arms[line.arm]
        const band = line.low && line.low[n] !== null ? ` [${text(line.low[n], 3)}, ${text(line.high[n], 3)}]` : ""
        const lost = line.ends?.includes(xs[at]) ? " × trials fail" : ""
        return make("div", {class: each === nearest ? "near" : null}, swatch(arm),
          `${arm.name}: ${text(each.value)}${band}${lost}`)
      })
      const more = told.length - some.length
      tip.show(u.over.offsetLeft + u.cursor.left, u.root.offsetTop + u.root.offsetHeight,  // below, to hide nothing of it
        make("div", {}, `${spec.x} ${text(xs[at])}`), ...rows, more > 0 ? make("div", {}, `and ${more} more`) : "")
    }
    const axis = {stroke: () => theme("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
      grid: {stroke: () => theme("--grid"), width: 1}, ticks: {stroke: () => theme("--grid"), width: 1, size: 4}}
    const values = (u, splits) => splits.map(value => value === null ? "" : text(value))
    const logTicks = axis => (u, splits) => splits.map(value => {
      if (value === null) return ""
      const few = u.scales[axis].max / u.scales[axis].min < 30
      return (few ? [1, 2, 5] : [1]).includes(Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9) * 1e3) / 1e3)
        ? text(value) : ""
    })
    const u = new uPlot({
      width: Math.max(host.clientWidth, 200), height: high, legend: {show: false}, series, bands,
      padding: [8, 10, 0, 0],
      scales: {x: {time: false, distr: spec.logx ? 3 : 1}, y: {distr: spec.log ? 3 : 1, range: limits}},
      axes: [
        {...axis, size: 28, label: spec.x, labelSize: 18, labelGap: 0, values: spec.logx ? logTicks("x") : values, space: 44,
          filter: spec.logx ? (u, splits) => splits : undefined},
        {...axis, size: 52, label: spec.y, labelSize: 18, labelGap: 0, values: spec.log ? logTicks("y") : values,
          filter: spec.log ? (u, splits) => splits : undefined},
      ],
      cursor: {sync: {key: spec.sync ?? spec.y}, drag: {x: true, y: false}, points: {show: (u, n) => {
        const dot = document.createElement("div")
        dot.hidden = !own.includes(n) || behind(ordered[own.indexOf(n)])
        return dot
      }}},
      hooks: {draw: [marks], setCursor: [tell], ready: [u => {
        u.over.addEventListener("mouseenter", () => { u.here = true })
        u.over.addEventListener("mouseleave", () => { u.here = false; tip.hide() })
      }]},
    }, data, host)
    u.root.classList.add("chart")
    host.setAttribute("tabindex", "0")
    host.setAttribute("role", "img")
    host.setAttribute("aria-label", `${label}. Arrow keys read it off.`)
    host.addEventListener("keydown", event => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key]
      if (!step) return
      event.preventDefault()
      const from = u.here && u.cursor.idx !== null ? u.cursor.idx + step : step > 0 ? 0 : xs.length - 1
      u.here = true
      u.setCursor({left: u.valToPos(xs[Math.min(Math.max(from, 0), xs.length - 1)], "x"), top: u.over.clientHeight / 2})
    })
    host.addEventListener("blur", () => { u.here = false; tip.hide() })
    fitted(host, () => u.setSize({width: host.clientWidth, height: high}))
    return {u, hear: () => u.batch(() => {
      ordered.forEach((line, n) => {
        const on = !isOff(spec, line.arm)
        for (let at = own[n]; at < (own[n + 1] ?? data.length); at++) u.setSeries(at, {show: on})
      })
      u.redraw(true, true)
    })}
  }

  const plots = new Set()
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(u => u.redraw(false, true)))

  const curves = (figure, spec, alt) => {
    const alone = spec.panels.length === 1
    const small = spec.panels.length > spec.lines.length
    const box = make("div", {class: `panels${alone ? " one" : small ? " small" : ""}`})
    const chart = make("div", {class: "chart"}, ...(small ? [chips(spec)] : [chips(spec)]), box)
    figure.prepend(chart)
    for (const panel of spec.panels) {
      const host = make("div", {class: "panel"})
      box.append(host)
      if (panel.title) host.append(make("h4", {}, panel.title))
      const {u, hear} = curve(host, spec, spec.lines[panel.of], panel.shown, small ? 160 : 240,
        [panel.title, alt].filter(Boolean).join(": "))
      plots.add(u)
      heard.add({key: spec.key, hear: () => {
        host.hidden = small && panel.shown.every(arm => isOff(spec, arm))
        hear()
      }})
    }
  }

  // ---- a comparison: means, intervals, seeds ----

  const ticks = (low, high, count, log) => {
    if (log) {
      const found = []
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) found.push(10 ** power)
      const step = Math.ceil(found.length / count)
      return found.filter((tick, n) => n % step === 0 && tick >= low)
    }
    const rough = (high - low) / count, size = 10 ** Math.floor(Math.log10(rough))
    const step = [1, 2, 5, 10].map(n => n * size).find(each => each >= rough)
    return Array.from({length: count + 2}, (_, n) => (Math.ceil(low / step) + n) * step).filter(tick => tick <= high)
  }

  const dots = (figure, spec, alt) => {
    const box = make("div", {class: `panels${spec.panels.length === 1 ? " one" : ""}`})
    figure.prepend(make("div", {class: "chart"}, chips(spec), box))
    const all = spec.panels.flatMap(({rows}) => rows.flatMap(row => [row.mean, row.low, row.high,
      ...row.seeds.map(seed => seed[1])])).filter(value => value !== null && (!spec.log || value > 0))
    let [low, high] = [Math.min(...all), Math.max(...all)]
    const room = (high - low) * .3 || .1
    if (spec.guess !== null && !spec.log && spec.guess > low - room && spec.guess < high + room)
      [low, high] = [Math.min(low, spec.guess), Math.max(high, spec.guess)]
    ;[low, high] = padded(low, high, spec.log)
    const near = spec.guess !== null && spec.guess >= low && spec.guess <= high
    for (const panel of spec.panels) {
      const host = make("div", {class: "panel"})
      box.append(host)
      if (panel.title) host.append(make("h4", {}, panel.title))
      const stage = make("div", {})
      host.append(stage)
      const tip = tipIn(host)
      const paint = () => {
        const rows = panel.rows.filter(row => !isOff(spec, row.arm))
        const longest = Math.max(0, ...spec.arms.map(arm => arm.name.length))
        const wide = Math.max(host.clientWidth, 200), left = Math.min(12 + 7.4 * longest, .42 * wide)
        const tall = 12 + 28 * rows.length, right = wide - 12
        const at = value => left + (right - left) * (spec.log
          ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low))
        const svg = draw("svg", {width: wide, height: tall + 36, role: "group",
          "aria-label": [panel.title, alt].filter(Boolean).join(": ")})
        for (const tick of ticks(low, high, Math.max(2, Math.floor((right - left) / 40)), spec.log)) svg.append(
          draw("line", {class: "rule", x1: at(tick), x2: at(tick), y1: 0, y2: tall}),
          draw("text", {x: at(tick), y: tall + 15, "text-anchor": "middle"}, text(tick)))
        svg.append(draw("line", {class: "axis", x1: left, x2: right, y1: tall, y2: tall}),
          draw("text", {x: (left + right) / 2, y: tall + 31, "text-anchor": "middle"}, spec.x + (near ? "; dotted: chance" : "")))
        if (near)
          svg.append(draw("line", {class: "guess", x1: at(spec.guess), x2: at(spec.guess), y1: 0, y2: tall},
            draw("title", {}, `chance: ${text(spec.guess)}`)))
        rows.forEach((row, n) => {
          const arm = spec.arms[row.arm], y = 20 + 28 * n, colour = svgInk(arm.colour)
          const most = Math.floor((left - 10) / 7.4)
          const name = arm.name.length > most ? "…" + arm.name.slice(1 - most) : arm.name
          svg.append(draw("text", {x: left - 10, y: y + 4, "text-anchor": "end"}, draw("title", {}, arm.name), name))
          const say = (x, ...words) => tip.show(x, y + 24, ...words.map(each => make("div", {}, each)))
          const told = row.mean === null ? `${arm.name}: no value`
            : `${arm.name}: mean ${text(row.mean)}${row.low === null ? "" : ` [${text(row.low)}, ${text(row.high)}]`}`
          const strip = draw("rect", {x: 0, y: y - 14, width: wide, height: 28, fill: "transparent"})
          strip.addEventListener("mouseenter", () => say(at(row.mean ?? low), told))
          strip.addEventListener("mouseleave", tip.hide)
          svg.append(strip)
          if (row.low !== null && (!spec.log || row.low > 0)) svg.append(draw("line", {x1: at(row.low), x2: at(row.high),
            y1: y, y2: y, "stroke-width": 2.4, style: `stroke:${colour};pointer-events:none`}))
          if (row.mean !== null) svg.append(draw("path", {d: SHAPES[arm.marker], class: "mean",
            transform: `translate(${at(row.mean)} ${y}) scale(1.25)`, style: `fill:${colour};pointer-events:none`}))
          // Each seed at a height of its own, so that those of one value can be told apart.
          const apart = row.seeds.length > 1 ? Math.min(5, 16 / (row.seeds.length - 1)) : 0
          row.seeds.forEach(([seed, value, failed, key], place) => {
            const level = y + (place - (row.seeds.length - 1) / 2) * apart
            if (spec.log && !(value > 0)) return
            const words = `${arm.name}${panel.title ? ` ${panel.title}` : ""}, seed ${seed}: ${text(value)}${failed ? ", failed" : ""}`
            const mark = draw("path", {class: "seed", d: failed ? CROSS : SHAPES.o, transform: `translate(${at(value)} ${level})`,
              style: `stroke:${colour};pointer-events:none`})
            const target = draw("circle", {cx: at(value), cy: level, r: apart ? Math.max(2, .9 * apart) : 9, fill: "transparent"})
            const hold = key ? draw("a", {href: `#trial-${key}`, "aria-label": words}, target, mark) : draw("g", {}, target, mark)
            hold.addEventListener("mouseenter", () => say(at(value), words, ...key ? ["press for this trial's page"] : []))
            hold.addEventListener("focus", () => say(at(value), words))
            hold.addEventListener("mouseleave", tip.hide)
            hold.addEventListener("blur", tip.hide)
            svg.append(hold)
          })
        })
        tip.hide()
        stage.replaceChildren(svg)
      }
      fitted(host, paint)
      paint()
      heard.add({key: spec.key, hear: paint})
    }
  }

  // ---- kernels: one at a time, of arms that are alike ----

  // Panels of the same arms, of a quantity each.
  const side = (figure, spec, parts) => {
    const panels = make("div", {class: "panels"})
    figure.append(make("div", {class: "chart"}, chips(spec), panels))
    for (const part of parts) {
      const host = make("div", {class: "panel"}, make("h4", {}, part.y))
      panels.append(host)
      const {u, hear} = curve(host, {...spec, sync: spec.key, ...part}, part.lines, spec.arms.map((_, n) => n), 220, part.y)
      plots.add(u)
      heard.add({key: spec.key, hear})
    }
  }

  const choice = (name, options, heardOf) => {
    const select = make("select", {"aria-label": name, onchange: event => heardOf(+event.target.value)},
      ...options.map((option, n) => make("option", {value: n}, option)))
    return [make("label", {}, name, select), select]
  }

  const kernels = (figure, spec, alt) => {
    const box = make("div", {}), arms = chips(spec)
    let place = 0, kernel = 0, listening = []
    const show = () => {
      listening.forEach(each => heard.delete(each))
      listening = []
      const {kernels, lines} = spec.panels[place]
      const mine = lines.filter(line => line.kernel === kernel)
      const panels = make("div", {class: "panels"})
      box.replaceChildren(panels)
      spec.statistics.forEach((statistic, n) => {
        const host = make("div", {class: "panel"}, make("h4", {}, statistic))
        panels.append(host)
        const part = {...spec, y: statistic, log: true, guess: null, sync: "kernels"}
        const {u, hear} = curve(host, part, mine.map(line => ({...line, y: line.y[n]})), spec.arms.map((_, n) => n), 220,
          `${alt}: ${kernels[kernel] ?? ""}, ${statistic}`)
        plots.add(u)
        const each = {key: spec.key, hear}
        heard.add(each)
        listening.push(each)
      })
    }
    const [which, layer] = choice("kernel", [], value => { kernel = value; show() })
    const refill = () => {
      const names = spec.panels[place].kernels
      layer.replaceChildren(...names.map((name, n) => make("option", {value: n}, name)))
      kernel = Math.min(kernel, Math.max(names.length - 1, 0))
      layer.value = kernel
      show()
    }
    const [where] = choice("at", spec.panels.map(({title}) => title), value => { place = value; refill() })
    const several = spec.panels.length > 1
    figure.prepend(make("div", {class: "chart"},
      make("div", {class: "choices"}, several ? where : null, which), arms, box))
    refill()
  }

  const KINDS = {lines: curves, dots, kernels}

  // ---- tables: sorted, sifted ----

  const amount = words => {
    const found = words.replace("−", "-").match(/^[^\w+\-.]*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)/i)
    return found ? parseFloat(found[1]) : null
  }
  const table = (of, always) => {
    const body = of.tBodies[0], heads = [...of.tHead.rows[0].cells], rows = [...body.rows]
    if (rows.length < 2) return
    heads.forEach((head, column) => {
      const button = make("button", {type: "button", title: "sort"}, ...head.childNodes)
      head.replaceChildren(button)
      button.addEventListener("click", () => {
        const next = {ascending: "descending", descending: null}[head.getAttribute("aria-sort")] ?? null
        const how = head.hasAttribute("aria-sort") ? next : "ascending"
        heads.forEach(each => each.removeAttribute("aria-sort"))
        if (!how) return body.append(...rows)
        head.setAttribute("aria-sort", how)
        const sign = how === "ascending" ? 1 : -1
        const keyed = rows.map(row => [row, row.cells[column].textContent.trim()])
        const plain = keyed.every(([, words]) => amount(words) !== null || ["", "–", "baseline"].includes(words))
        const value = words => ["", "–"].includes(words) ? null : plain ? amount(words) ?? 0 : words
        keyed.sort(([, a], [, b]) => {
          const [x, y] = [value(a), value(b)]
          if (x === null || y === null) return (x === null) - (y === null)  // what is missing is last
          return sign * (plain ? x - y : x.localeCompare(y, undefined, {numeric: true}))
        })
        body.append(...keyed.map(([row]) => row))
      })
    })
    if (rows.length < 6 && !always) return
    const count = make("span", {role: "status"}, `${rows.length} rows`)
    const title = of.caption?.textContent ?? "the table"
    const input = make("input", {type: "search", placeholder: "filter rows", "aria-label": `filter rows of ${title}`,
      oninput: () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean)
        let left = 0
        rows.forEach(row => {
          const told = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase()
          row.hidden = !words.every(word => told.includes(word))
          left += !row.hidden
        })
        count.textContent = left < rows.length ? `${left} of ${rows.length} rows` : `${rows.length} rows`
      }})
    of.closest(".wide").before(make("div", {class: "sift"}, input, count))
  }

  const cue = wide => {
    const note = make("p", {class: "cue", hidden: true}, "wider than the screen: scroll sideways →")
    wide.before(note)
    const look = () => { note.hidden = wide.scrollWidth <= wide.clientWidth + 2 }
    new ResizeObserver(look).observe(wide)
    look()
  }

  // ---- trials ----

  const tabled = (heads, rows, title) => {
    const cells = row => row.map((cell, n) => make(n ? "td" : "th", n ? {} : {scope: "row"}, cell ?? "–"))
    return make("table", {}, make("caption", {}, title),
      make("thead", {}, make("tr", {}, ...heads.map(head => make("th", {scope: "col"}, head)))),
      make("tbody", {}, ...rows.map(row => make("tr", {}, ...cells(row)))))
  }

  const listTrials = (host, {factors, metric, rows}) => {
    const heads = ["trial", ...factors, "seed", "status", "epochs", metric, "seconds", "early warnings"]
    const made = tabled(heads, rows.map(row => [
      make("a", {href: `#trial-${row.key}`}, row.key.slice(0, 8)), ...row.levels, String(row.seed), row.status,
      text(row.epochs), text(row.value), text(row.seconds), row.warnings.join("; ")]), `All ${rows.length} trials`)
    made.querySelectorAll("tbody td:last-child").forEach(cell => cell.classList.add("text"))
    const wide = make("div", {class: "wide tall", tabindex: "0", role: "group", "aria-label": "table of trials, scrolls"}, made)
    host.append(wide)
    table(made, true)
    cue(wide)
  }

  const named = (pairs) => make("dl", {}, ...pairs.filter(([, value]) => value).flatMap(
    ([name, value]) => [make("dt", {}, name), make("dd", {}, value)]))

  let layers = null
  const trialPage = async (page, data, key) => {
    const {rows, curves: courses, settings} = data.trials
    const trial = rows.find(row => row.key === key)
    const back = make("p", {}, make("a", {href: "#trials"}, "← back to the report"))
    page.replaceChildren(back)
    if (!trial) {
      page.append(make("p", {}, "There is no such trial in this report."))
      return
    }
    const mates = rows.filter(row => row.arm === trial.arm)
    const peers = rows.filter(row => row.seed === trial.seed && row.arm !== trial.arm)
    const links = (some, name) => make("span", {}, ...some.flatMap(
      row => [make("a", {href: `#trial-${row.key}`}, name(row)), " "]))
    const own = settings.of[key] ?? []
    page.append(
      make("h1", {tabindex: "-1"}, `${trial.arm || "the one arm"}, seed ${trial.seed}: ${trial.status}`),
      named([
        ["why it failed", trial.reason],
        ...Object.entries(trial.scores).map(([name, value]) => [name, text(value)]),
        ["epochs", text(trial.epochs)], ["seconds", text(trial.seconds)], ["key", trial.key], ["MLflow run", trial.run],
        ["other seeds", mates.length > 1 ? links(mates.filter(row => row !== trial), row => `seed ${row.seed}`) : ""],
        ["this seed elsewhere", peers.length ? links(peers, row => row.arm) : ""],
      ]),
      make("h2", {}, "Early warnings"),
      trial.warnings.length ? make("ul", {}, ...trial.warnings.map(sign => make("li", {}, sign))) : make("p", {}, "none"))
    const mine = courses.of[key]
    if (mine) {
      const [epochs, ...columns] = mine, figure = make("figure", {})
      const parts = [...new Set(courses.names.map(name => name.split(" ")[0]))]
      const arms = parts.map((name, n) => ({name: name === "learning" ? "learning rate" : name, ...look(n)}))
      const about = name => courses.names.flatMap((each, n) => each.endsWith(name) && columns[n].some(value => value !== null)
        ? [{arm: parts.indexOf(each.split(" ")[0]), x: epochs, y: columns[n]}] : [])
      page.append(make("h2", {}, "Curves"), figure)
      side(figure, {key: "curves of a trial", arms, x: "epoch"}, [
        {y: "accuracy", lines: about("accuracy")}, {y: "loss", log: true, lines: about("loss")},
        {y: "learning rate", lines: about("learning rate")}].filter(({lines}) => lines.length))
    }
    page.append(make("h2", {}, "Weights"))
    const figure = make("figure", {})
    page.append(figure)
    layers ??= await unpack("layers")
    if (!figure.isConnected) return  // another trial was asked for meanwhile
    const kept = layers.of[key]
    if (kept) {
      const [epochs, of] = kept
      const arms = of.map(([kernel], n) => ({name: layers.kernels[kernel], ...look(n)}))
      side(figure, {key: "kernels of a trial", arms, x: "epoch"}, layers.statistics.map((y, n) => ({y, log: true,
        lines: of.map(([, ...values], arm) => ({arm, x: epochs.slice(0, values[n].length), y: values[n]}))})))
    } else figure.append(make("p", {}, "No statistics of its weights were kept."))
    page.append(make("h2", {}, "Config"),
      own.length ? named(settings.names.map((name, n) => [name, own[n]])) : make("p", {}, "That of all trials."),
      make("details", {}, make("summary", {}, "What is the same in all trials"), named(Object.entries(settings.same))))
  }

  if (!window.DecompressionStream || !window.uPlot) return
  const data = await unpack("data")
  document.documentElement.classList.add("live")
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const spec = data.charts[figure.dataset.chart]
    const alt = figure.dataset.alt ?? figure.querySelector("svg")?.getAttribute("aria-label") ?? ""
    KINDS[spec.kind](figure, spec, alt)
  }
  document.querySelectorAll("main table").forEach(each => table(each, false))
  document.querySelectorAll("main .wide").forEach(cue)
  const host = document.querySelector(".trials")
  if (host) listTrials(host, data.trials)

  const main = document.querySelector("main"), header = document.querySelector("header")
  const page = document.getElementById("trial"), title = document.title
  const passing = []
  let height = 0
  const route = async hash => {
    const key = /^#trial-(\w+)$/.exec(hash)?.[1]
    if (key && page.hidden) height = scrollY
    const returned = !key && !page.hidden
    main.hidden = header.hidden = Boolean(key)
    page.hidden = !key
    while (passing.length) passing.pop()()  // what listens for the trial that was shown
    if (key) {
      const before = [heard, plots].map(some => new Set(some))
      await trialPage(page, data, key)
      for (const [n, some] of [heard, plots].entries())
        some.forEach(each => before[n].has(each) || passing.push(() => some.delete(each)))
      document.title = page.querySelector("h1")?.textContent ?? title
      scrollTo(0, 0)
      page.querySelector("h1")?.focus({preventScroll: true})
    } else if (returned) {
      page.replaceChildren()
      document.title = title
      scrollTo(0, height)
    }
  }
  // In a frame that may go nowhere, such as MLflow's, a link still leads where it says.
  document.addEventListener("click", event => {
    const hash = event.target.closest("a[href^='#']")?.getAttribute("href")
    if (!hash || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return
    event.preventDefault()
    const returning = !page.hidden
    try { history.pushState(null, "", hash) } catch { /* no history there */ }
    route(hash)
    if (!returning && !hash.startsWith("#trial-")) document.getElementById(hash.slice(1))?.scrollIntoView()
  })
  addEventListener("popstate", () => route(location.hash))
  await route(location.hash)
})()
