(function () {
  var tip = document.getElementById("tip");
  function put(tag, parent, text) { var e = document.createElement(tag); if (text) e.textContent = text; parent.appendChild(e); return e; }
  function draw(tag, parent, set) { var e = document.createElementNS(parent.namespaceURI, tag); for (var k in set) e.setAttribute(k, set[k]); parent.appendChild(e); return e; }
  function show(head, rows, x, y) {
    tip.textContent = ""; put("b", tip, head);
    rows.forEach(function (row) { var s = put("span", tip); put("i", s, row[0]).style.fontStyle = "normal"; put("i", s, row[1]).style.fontStyle = "normal"; });
    tip.style.display = "block";
    var w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = Math.max(8, x + 16 + w > innerWidth ? x - w - 16 : x + 16) + "px";
    tip.style.top = Math.max(8, Math.min(y - h / 2, innerHeight - h - 8)) + "px";
  }
  function hide() { tip.style.display = "none"; }
  document.querySelectorAll("[data-tip]").forEach(function (mark) {
    var part = mark.dataset.tip.split("|");
    mark.addEventListener("pointermove", function (e) { show(part[0], [[part[1], part[2]]], e.clientX, e.clientY); });
    mark.addEventListener("pointerleave", hide);
  });
  document.querySelectorAll("script.readout").forEach(function (script) {
    var data = JSON.parse(script.textContent), svg = script.parentNode.querySelector("svg.chart"), cursor = svg.querySelector(".cursor"), at = -1;
    function go(index, x, y) {
      at = Math.max(0, Math.min(index, data.x.length - 1));
      cursor.textContent = "";
      draw("line", cursor, { x1: data.x[at], x2: data.x[at], y1: 8, y2: svg.dataset.bottom });
      data.series.forEach(function (one) { if (one.y[at] !== null) draw("circle", cursor, { "class": one.slot, cx: data.x[at], cy: one.y[at], r: 4 }); });
      var box = svg.getBoundingClientRect();
      if (x === undefined) { x = box.left + data.x[at] * box.width / svg.viewBox.baseVal.width; y = box.top + box.height / 2; }
      show(data.label[at], data.series.map(function (one) { return [one.name, one.value[at]]; }), x, y);
    }
    function leave() { cursor.textContent = ""; hide(); }
    svg.addEventListener("pointermove", function (e) {
      if (!data.x.length) return;
      var box = svg.getBoundingClientRect(), x = (e.clientX - box.left) * svg.viewBox.baseVal.width / box.width, best = 0;
      data.x.forEach(function (value, i) { if (Math.abs(value - x) < Math.abs(data.x[best] - x)) best = i; });
      go(best, e.clientX, e.clientY);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", function (e) {
      var move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[e.key];
      if (e.key === "Escape") leave();
      if (move && data.x.length) { e.preventDefault(); go(at < 0 ? 0 : at + move); }
    });
  });
})();
