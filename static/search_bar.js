// The search bar: Ctrl/Cmd-K, arrow keys and Enter over what the server offers. Nothing typed is kept.
(() => {
  const form = document.querySelector("[data-search-bar]");
  if (!form) return;
  const input = form.querySelector("input[role=combobox]");
  const list = form.querySelector("[role=listbox]");
  let enterWaits = false; // pressed before the answer to what was typed had come
  let dismissed = false; // by Escape: an answer that comes late must not open the list again

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
  input.addEventListener("focus", () => { dismissed = false; if (window.htmx) window.htmx.trigger(input, "open"); });
  document.addEventListener("htmx:load", (event) => { // it came after the bar was opened
    if (event.target === document.body && document.activeElement === input) window.htmx.trigger(input, "open");
  });
  input.addEventListener("input", () => { enterWaits = dismissed = false; });
  input.addEventListener("keydown", (event) => {
    const all = offers();
    if (event.key === "Escape") { enterWaits = false; dismissed = true; show(false); input.value = ""; return; }
    if (event.key === "Enter" && window.htmx) {
      event.preventDefault();
      if (!list.hidden && answers()) choose();
      else enterWaits = input.value.trim() !== "";
      if (enterWaits && answers()) window.htmx.trigger(input, "open");
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !all.length) return;
    event.preventDefault();
    if (list.hidden) show(true);
    else select((active() + step + all.length) % all.length);
  });
  list.addEventListener("click", () => { dismissed = true; show(false); }); // a download leaves the page as it is
  list.addEventListener("htmx:afterSwap", () => {
    show(!dismissed && form.contains(document.activeElement));
    if (enterWaits && answers()) { enterWaits = false; choose(); }
  });
  for (const type of ["htmx:sendError", "htmx:responseError"]) input.addEventListener(type, () => { enterWaits = false; });
  for (const type of ["focusin", "click"]) document.addEventListener(type, (event) => {
    if (!form.contains(event.target)) { enterWaits = false; show(false); }
  });
})();
