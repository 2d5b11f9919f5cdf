// The token of this tab, for a service that lets nobody in without one.

const KEPT = "token";

export const token = () => sessionStorage.getItem(KEPT);

// Asks until a token is given, and keeps it until the tab is closed.
export function askForToken() {
  return new Promise((done) => {
    const dialog = document.createElement("dialog");
    dialog.innerHTML = `<form method="dialog"><label>A token is needed <input type="password" name="token" required autocomplete="off"></label> <button>Go on</button></form>`;
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => {
      sessionStorage.setItem(KEPT, dialog.querySelector("input").value.trim());
      dialog.remove();
      done();
    };
    document.body.append(dialog);
    dialog.showModal();
  });
}

// fetch with the token, which is asked for where the service wants one.
export async function ask(path, options = {}) {
  for (;;) {
    const headers = { ...options.headers, ...(token() && { Authorization: `Bearer ${token()}` }) };
    const answer = await fetch(path, { ...options, headers });
    if (answer.status !== 401) return answer;
    await askForToken();
  }
}
