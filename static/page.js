// What plain forms cannot do: a drop zone, one click where two would be one too many, and a word when the server is away.
(() => {
  document.documentElement.classList.add("enhanced-page");

  const form = document.querySelector("[data-upload]");
  if (form) {
    const input = form.querySelector("input[type=file]");
    const zone = form.querySelector("[data-drop]");
    const name = form.querySelector("[data-file-name]");
    const refusal = form.querySelector("#refusal");
    const button = form.querySelector("[data-once]");
    const words = button.textContent;
    const megabytes = (bytes, round = Math.round) => {
      const digits = bytes < 1e7 ? 1 : 0;
      return `${(round(bytes / 10 ** (6 - digits)) / 10 ** digits).toFixed(digits)} MB`;
    };
    const show = () => {
      const [file, another] = input.files;
      const most = Number(form.dataset.maxBytes);
      const refused = another ? `These are ${input.files.length} files. Send one file at a time.`
        : file && file.size > most ? `This file is ${megabytes(file.size, Math.ceil)}; ${megabytes(most, Math.floor)} is the most. Send it in parts.` : "";
      name.textContent = file && !another ? `${file.name} (${megabytes(file.size)})` : "Choose a CSV";
      refusal.hidden = !refused;
      refusal.textContent = refused;
      button.disabled = Boolean(refused);
      button.textContent = words; // an upload that was stopped leaves others
    };
    input.addEventListener("change", show);
    for (const type of ["dragenter", "dragover"]) zone.addEventListener(type, (event) => { event.preventDefault(); zone.classList.add("over"); });
    for (const type of ["dragleave", "drop"]) zone.addEventListener(type, () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => { event.preventDefault(); input.files = event.dataTransfer.files; show(); });
  }

  addEventListener("submit", (event) => {
    // A button that is disabled at once would not be sent; the second click comes later than this.
    const button = event.submitter;
    if (button && button.hasAttribute("data-once")) setTimeout(() => {
      button.disabled = true;
      button.textContent = button.dataset.once || button.textContent;
    }, 0);
  });
  for (const menu of document.querySelectorAll("[data-menu]")) {
    const close = () => { menu.open = false; };
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) close(); });
    menu.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && menu.open) { close(); menu.querySelector("summary").focus(); }
    });
    menu.addEventListener("focusout", (event) => { if (event.relatedTarget && !menu.contains(event.relatedTarget)) close(); });
  }

  const dialog = document.getElementById("dialog");
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog-place" && !document.getElementById("purge")) location.reload(); // purged meanwhile: the page says when
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.status !== 410 || !event.detail.target.matches(".section")) return;
    event.detail.shouldSwap = false; // there is no such part in the page that says when
    location.reload();
  });
  // Not before it has settled: until then htmx does not know the form in it, and a quick Enter would leave the page.
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id === "dialog-place" && !dialog.open) {
      document.querySelector("[data-menu]").open = false;
      document.querySelector("[data-menu] summary").focus(); // where the focus returns to when the dialog closes
      dialog.showModal();
    }
  });
  // The mapping as the page was made has its rows. To ask for them again and swap them would lose a press of the button below.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id !== "mapping" || event.detail.requestConfig.triggeringEvent) return; // by a change, and not because it is there
    const isAsMade = (choice) => (choice.selected === choice.defaultSelected) && (choice.checked === choice.defaultChecked);
    if ([...event.target.querySelectorAll("option, [type=checkbox]")].every(isAsMade)) event.preventDefault();
  });
  // What a line that is said aloud says already must not be said again at every poll.
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { fragment, target } = event.detail;
    if (["counts", "still"].includes(target.id) && fragment.textContent === target.textContent) event.detail.shouldSwap = false;
  });
  // What was swapped away had the focus, so it goes to where the new content begins.
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id === "main") event.target.focus();
    if (event.target.matches(".section")) event.target.querySelector("h2").focus();
    if (event.target.id === "purge" && event.detail.target.id === "purge") document.getElementById("purge-title").focus();
    if (event.target.id === "found" && document.activeElement === document.body) {
      const told = document.getElementById("told");
      told.focus({ preventScroll: true });
      told.scrollIntoView({ block: "start" });
    }
  });
  document.addEventListener("click", (event) => {
    const keep = event.target.closest("[data-close]");
    if (keep && dialog && dialog.open && dialog.contains(keep)) { event.preventDefault(); dialog.close(); }
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload(); // the back button must show what is so now
  });

  // Coming back to a page that was asked for with a term must not ask the browser to send the term again.
  const posted = document.querySelector("[data-posted]");
  if (posted) history.replaceState(null, "", posted.dataset.posted);

  const trouble = document.getElementById("trouble");
  const told = (answer) => { // by our own error page, if it is one
    const page = new DOMParser().parseFromString(answer, "text/html").querySelector("[data-error]");
    return page && [...page.querySelectorAll("h1, h1 + p")].map((part) => part.textContent).join(". ");
  };
  for (const type of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) document.addEventListener(type, (event) => {
    const repeats = (event.target.getAttribute("hx-trigger") || "").startsWith("every");
    const answer = type === "htmx:responseError" && told(event.detail.xhr.responseText);
    trouble.textContent = answer || event.target.dataset.trouble || trouble.dataset[repeats ? "repeats" : "once"];
    // What is outside an open dialog is out of reach; one that was swapped away stays open, seen by nobody.
    (dialog?.isConnected && dialog.open ? dialog : document.body).append(trouble);
    trouble.hidden = false;
  });
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) trouble.hidden = true; });
})();
