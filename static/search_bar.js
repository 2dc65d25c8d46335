// The search bar: Ctrl/Cmd-K, arrow keys and Enter over what the server offers. Nothing typed is kept.
(() => {
  const form = document.querySelector("[data-search-bar]");
  if (!form) return;
  const input = form.querySelector("input[role=combobox]");
  const list = form.querySelector("[role=listbox]");
  let enterWaits = false; // pressed before the answer to what was typed had come

  const offers = () => [...list.querySelectorAll("[role=option]")];
  const active = () => offers().findIndex((offer) => offer.getAttribute("aria-selected") === "true");
  const answers = () => list.querySelector("[data-answers]")?.value === input.value;
  const show = (open) => {
    list.hidden = !open || offers().length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    select(active());
  };
  const select = (wanted) => {
    const all = offers();
    all.forEach((offer, index) => offer.setAttribute("aria-selected", String(index === wanted)));
    if (!list.hidden && all[wanted]) {
      input.setAttribute("aria-activedescendant", all[wanted].id);
      all[wanted].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const choose = () => { const offer = offers()[active()]; if (offer) offer.click(); };

  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (document.querySelector("dialog[open]")) return;
      input.focus();
      input.select();
    }
  });
  input.addEventListener("focus", () => { if (window.htmx) window.htmx.trigger(input, "open"); });
  input.addEventListener("input", () => { enterWaits = false; });
  input.addEventListener("keydown", (event) => {
    const all = offers();
    if (event.key === "Escape") { show(false); input.value = ""; return; }
    if (event.key === "Enter" && window.htmx) {
      event.preventDefault();
      if (answers()) choose(); else enterWaits = true;
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !all.length) return;
    event.preventDefault();
    if (list.hidden) show(true);
    else select((active() + step + all.length) % all.length);
  });
  list.addEventListener("htmx:afterSwap", () => {
    show(form.contains(document.activeElement));
    if (enterWaits && answers()) { enterWaits = false; choose(); }
  });
  document.addEventListener("focusin", (event) => { if (!form.contains(event.target)) show(false); });
  document.addEventListener("click", (event) => { if (!form.contains(event.target)) show(false); });
})();
