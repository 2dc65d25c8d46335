"""Signing in and out."""

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask_login import current_user, login_user, logout_user

from purge.extensions import db, limiter
from purge.models import User
from purge.models.users import sign_in

blueprint = Blueprint("sign_in", __name__)

WRONG = 422  # only these count as guesses: a whole office signs in from one address


@blueprint.route("/login", methods=["GET", "POST"])
@limiter.limit("10/minute", methods=["POST"], deduct_when=lambda response: response.status_code == WRONG)
def login():
    if current_user.is_authenticated:
        return redirect(going_to(), 303)
    if request.method == "GET":
        return render_template("sign_in/login.html", wrong=False, email="")
    user = sign_in(request.form.get("email", ""), request.form.get("password", ""))
    if user is None:
        return render_template("sign_in/login.html", wrong=True, email=request.form.get("email", "")), WRONG
    session.clear()
    session.permanent = True
    login_user(user)
    return redirect(going_to(), 303)


@blueprint.post("/logout")
def logout():
    """Everywhere: a cookie that was copied is worth nothing any more."""
    user_id = getattr(current_user, "id", None)
    logout_user()
    session.clear()
    if user := db.session.get(User, user_id) if user_id else None:
        user.end_sessions()
        db.session.commit()
    return redirect(url_for("sign_in.login"), 303)


def going_to() -> str:
    """Where they were going, if that is a page of ours."""
    wanted = request.args.get("next", "")
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    ours = ours and wanted.isprintable()  # a header has one line, and a browser leaves tabs out
    return wanted if ours else url_for("home")
