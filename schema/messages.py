"""Messages of refusals by language. English is the refusal's own text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from models import errors

_HEADER_LIMIT: Final = 500  # characters that are read of Accept-Language
DEFAULT: Final = "en"
# For refusals that say no more than their class or their facts do; a more exact English text stays.
TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "de": {
        "BLANK": "Dieses Feld darf nicht leer sein.",
        "TOO_LONG": "Höchstens {limit} Zeichen.",
        "INVALID": "Dieser Wert ist nicht gültig.",
        "NOT_FOUND": "Es gibt nichts mit dieser ID.",
        "FORBIDDEN": "Ihre Rolle erlaubt das nicht.",
        "AMOUNT_TOO_SMALL": "Der kleinste Betrag ist {minimum}.",
        "AMOUNT_TOO_LARGE": "Der größte Betrag ist {maximum}.",
        "REFUND_EXCEEDS_PAYMENT": "Von dieser Zahlung sind höchstens {refundable} übrig.",
        "CURRENCY_NOT_SUPPORTED": "Der Zahlungsanbieter nimmt diese Währung nicht an.",
        "MESSAGING_WINDOW_CLOSED": (
            "Der Kontakt hat auf diesem Kanal zu lange nicht geschrieben. Nutzen Sie einen anderen Kanal, oder kopieren Sie den Link."
        ),
        "CONTACT_OPTED_OUT": "Der Kontakt möchte auf diesem Kanal keine Nachrichten.",
        "CONTACT_HAS_NO_ADDRESS": "Der Kontakt hat auf diesem Kanal keine Adresse.",
        "ALREADY_PAID": "Diese Zahlungsanforderung ist schon bezahlt.",
        "ALREADY_VOID": "Diese Zahlungsanforderung wurde storniert.",
        "ALREADY_USED": "Diese Adresse gehört zu einem anderen Kontakt.",
        "PAYMENT_IN_PROGRESS": "Zu dieser Anforderung läuft gerade eine Zahlung.",
        "VERSION_CONFLICT": "Das Objekt hat sich geändert, seit Sie es gelesen haben.",
        "SIGN_IN_FAILED": "E-Mail-Adresse oder Passwort ist falsch.",
        "RATE_LIMITED": "Zu viele Versuche. Bitte warten Sie {seconds} Sekunden.",
    },
    "es": {
        "BLANK": "Este campo no puede estar vacío.",
        "TOO_LONG": "Como máximo {limit} caracteres.",
        "INVALID": "Este valor no es válido.",
        "NOT_FOUND": "No hay nada con este identificador.",
        "FORBIDDEN": "Su rol no permite esta acción.",
        "AMOUNT_TOO_SMALL": "El importe mínimo es {minimum}.",
        "AMOUNT_TOO_LARGE": "El importe máximo es {maximum}.",
        "REFUND_EXCEEDS_PAYMENT": "De este pago quedan como máximo {refundable}.",
        "CURRENCY_NOT_SUPPORTED": "El procesador de pagos no acepta esta moneda.",
        "MESSAGING_WINDOW_CLOSED": (
            "El contacto no ha escrito recientemente por este canal. Use otro canal o copie el enlace."
        ),
        "CONTACT_OPTED_OUT": "El contacto no desea recibir mensajes por este canal.",
        "CONTACT_HAS_NO_ADDRESS": "El contacto no tiene dirección en este canal.",
        "ALREADY_PAID": "Esta solicitud de pago ya está pagada.",
        "ALREADY_VOID": "Esta solicitud de pago está anulada.",
        "ALREADY_USED": "Esta dirección pertenece a otro contacto.",
        "PAYMENT_IN_PROGRESS": "Hay un pago en curso de esta solicitud.",
        "VERSION_CONFLICT": "El objeto ha cambiado desde que usted lo leyó.",
        "SIGN_IN_FAILED": "La dirección de correo o la contraseña no es correcta.",
        "RATE_LIMITED": "Demasiados intentos. Espere {seconds} segundos.",
    },
    "fr": {
        "BLANK": "Ce champ ne peut pas être vide.",
        "TOO_LONG": "Au plus {limit} caractères.",
        "INVALID": "Cette valeur n'est pas valide.",
        "NOT_FOUND": "Il n'y a rien avec cet identifiant.",
        "FORBIDDEN": "Votre rôle ne permet pas cette action.",
        "AMOUNT_TOO_SMALL": "Le montant minimal est de {minimum}.",
        "AMOUNT_TOO_LARGE": "Le montant maximal est de {maximum}.",
        "REFUND_EXCEEDS_PAYMENT": "Il reste au plus {refundable} de ce paiement.",
        "CURRENCY_NOT_SUPPORTED": "Le prestataire de paiement n'accepte pas cette devise.",
        "MESSAGING_WINDOW_CLOSED": (
            "Le contact n'a pas écrit récemment sur ce canal. Utilisez un autre canal ou copiez le lien."
        ),
        "CONTACT_OPTED_OUT": "Le contact ne souhaite pas de messages sur ce canal.",
        "CONTACT_HAS_NO_ADDRESS": "Le contact n'a pas d'adresse sur ce canal.",
        "ALREADY_PAID": "Cette demande de paiement est déjà payée.",
        "ALREADY_VOID": "Cette demande de paiement est annulée.",
        "ALREADY_USED": "Cette adresse appartient à un autre contact.",
        "PAYMENT_IN_PROGRESS": "Un paiement de cette demande est en cours.",
        "VERSION_CONFLICT": "L'objet a changé depuis que vous l'avez lu.",
        "SIGN_IN_FAILED": "L'adresse e-mail ou le mot de passe est incorrect.",
        "RATE_LIMITED": "Trop de tentatives. Veuillez attendre {seconds} secondes.",
    },
}


@lru_cache(maxsize=1024)
def language_of(accept_language: str) -> str:
    """The known language that an Accept-Language header (RFC 9110, 12.5.4) prefers; English if it names none."""
    weighted = []
    for n, part in enumerate(accept_language[:_HEADER_LIMIT].split(",")):
        tag, _, parameter = part.partition(";")
        name, _, weight = parameter.partition("=")
        try:
            quality = float(weight) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        weighted.append((-quality, n, tag.strip().partition("-")[0].lower()))
    known = (tag for quality, _, tag in sorted(weighted) if quality < 0 and (tag == DEFAULT or tag in TEXTS))
    return next(known, DEFAULT)


def message_of(refusal: errors.Refusal, language: str) -> str:
    text = TEXTS.get(language, {}).get(refusal.code)
    if text is None:
        return refusal.message
    facts: dict[str, object] = {}
    match refusal:
        case errors.AmountTooSmall(minimum=amount) if amount is not None:
            facts["minimum"] = amount.formatted(language)
        case errors.AmountTooLarge(maximum=amount) if amount is not None:
            facts["maximum"] = amount.formatted(language)
        case errors.RefundExceedsPayment(refundable=amount):
            facts["refundable"] = amount.formatted(language)
        case errors.RateLimited(retry_after_s=seconds):
            facts["seconds"] = seconds
        case errors.TooLong(limit=int() as limit):
            facts["limit"] = limit
        case _ if not refusal.says_no_more:
            return refusal.message
    try:
        return text.format(**facts)
    except KeyError:  # the facts are unknown
        return refusal.message
